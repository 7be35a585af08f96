"""Costs and losses of mask features that have their 1x1 projection still before them are those of projected ones."""

import pytest
import torch

from mask2former.modeling.criterion import LossTerm, SetCriterion
from mask2former.modeling.losses import dice, sigmoid_cross_entropy, sigmoid_focal
from mask2former.modeling.matcher import HungarianMatcher
from mask2former.modeling.sampling import AllPixels, PointSampling
from mask2former.modeling.targets import Targets, dense_places
from mask2former.modeling.transformer_decoder.output import QueryPredictions
from mask2former.ops import backends, build, point_sample
from mask2former.ops.mask_losses import cross_entropy_cost, focal_cost

L, Q, K, C, CLOSE = 2, 5, 3, 6, {"rtol": 1e-10, "atol": 1e-10}


def rand(*shape, seed):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def leaves(B, T):
    """Class logits, mask embeddings, mask features, and the weight and bias of their projection."""
    tensors = rand(L, B, Q, K + 1, seed=1), rand(L, B, Q, C, seed=2), rand(B, C, T, 6, 8, seed=3)
    return [x.requires_grad_() for x in (*tensors, rand(C, C, seed=4), 3 * rand(C, seed=5))]


def projected(classes, embed, features, weight, bias):
    features = torch.einsum("dc,bcthw->bdthw", weight, features) + bias[:, None, None, None]
    return QueryPredictions(classes, embed, features)


def folded(classes, embed, features, weight, bias):
    return QueryPredictions(classes, embed @ weight, features, embed @ bias)


def targets_of(counts, T):
    M = sum(counts)
    masks = rand(M, T, 24, 32, seed=6) > 0
    return Targets(torch.arange(M) % K, masks.flatten(), dense_places(M, T, 24, 32), (24, 32), list(counts))


def build_criterion(points):
    sampling = PointSampling(40, 3.0, 0.75) if points else AllPixels()
    cost, loss = (cross_entropy_cost, sigmoid_cross_entropy) if points else (focal_cost, sigmoid_focal)
    return SetCriterion(
        K,
        matcher=HungarianMatcher(2.0, 5.0, 5.0, mask_cost=cost, sampling=sampling),
        class_weight=2.0,
        class_weights=[1.0, 1.0, 1.0, 0.1],
        terms=[LossTerm("mask", 5.0, loss), LossTerm("dice", 5.0, dice)],
        sampling=sampling,
    ).double()


def border_points(count, points, like):
    """Random ones, of which some are beyond the centres of the outer pixels."""
    found = torch.rand(count, points, 2, dtype=torch.float64)
    found[:, ::3] *= 0.05
    found[:, 1::3, 0] = 1 - found[:, 1::3, 0] * 0.05
    return found


@pytest.mark.parametrize("backend", ["torch", pytest.param("cpp", marks=pytest.mark.skipif(
    build.library("cpu") is None, reason="no C++ compiler"))])  # fmt: skip
@pytest.mark.parametrize("points", [True, False])
@pytest.mark.parametrize(("counts", "T"), [((2, 3), 1), ((0, 3), 1), ((4,), 2), ((7, 1), 2)])
def test_costs_losses_and_gradients(monkeypatch, counts, T, points, backend):
    monkeypatch.setenv(backends.VARIABLE, backend)
    monkeypatch.setattr(point_sample, "random_points", border_points)
    criterion, targets = build_criterion(points), targets_of(counts, T)
    costs, losses, gradients = [], [], []
    for make in (projected, folded):
        inputs = leaves(len(counts), T)
        predictions = make(*inputs)
        torch.manual_seed(0)
        costs.append(criterion.matcher._costs(predictions, targets).detach())
        torch.manual_seed(0)
        losses.append(criterion(predictions, targets))
        gradients.append(torch.autograd.grad(sum(losses[-1].values()), inputs))
    torch.testing.assert_close(costs[1], costs[0], **CLOSE)
    torch.testing.assert_close(losses[1], losses[0], **CLOSE)
    torch.testing.assert_close(gradients[1], gradients[0], **CLOSE)


def test_a_bias_counts_less_beyond_the_outer_centres(monkeypatch):
    """At the corner of a map a quarter of a sample is inside: that of a constant mask is a quarter of its logit."""
    corner = torch.zeros(1, 1, 2, dtype=torch.float64)
    monkeypatch.setattr(point_sample, "random_points", lambda *_: corner)
    zeros = torch.zeros(1, 1, 1, K + 1, dtype=torch.float64)
    predictions = QueryPredictions(zeros, zeros[..., :4], zeros.new_zeros(1, 4, 1, 6, 8), zeros[..., 0] + 8)
    costs = HungarianMatcher(0.0, 1.0, 0.0, mask_cost=cross_entropy_cost, sampling=PointSampling(1, 3.0, 0.75))._costs(
        predictions, Targets(torch.tensor([0]), torch.zeros(0), torch.zeros(1, 1, 6).long(), (24, 32), [1])
    )
    torch.testing.assert_close(costs[0, 0, 0], torch.nn.functional.softplus(torch.tensor(2.0, dtype=torch.float64)))


def test_a_layer_that_is_not_finite_is_assigned_all_the_same():
    predictions, targets = folded(*leaves(2, 1)), targets_of((2, 3), 1)
    predictions.mask_embed = predictions.mask_embed.detach().clone()
    predictions.mask_embed[0, 0, 2] = torch.nan
    assignment = build_criterion(True).matcher(predictions, targets)
    assert sorted(assignment.targets[0].tolist()) == list(range(5))


@pytest.mark.parametrize("counts", [(2, 3), (4, 0), (3,), (0,)])
def test_matched_masks_in_single_precision_are_those_in_double(counts):
    """On the CPU another kernel makes them, where the masks have many pixels."""
    classes, embed, features, weight, bias = leaves(len(counts), 2)
    features = rand(len(counts), 2, 24, 24, C, seed=7).permute(0, 4, 1, 2, 3).requires_grad_()
    chosen = [torch.arange(n).expand(L, -1) for n in counts]
    found = []
    for dtype in (torch.float64, torch.float32):
        predictions = folded(*(x.to(dtype) for x in (classes, embed, features, weight, bias)))
        masks = predictions.masks_of(chosen)
        assert masks.is_contiguous()
        grads = torch.autograd.grad(masks.sin().sum(), (embed, features, weight, bias))
        found.append([masks.double(), *grads])
    torch.testing.assert_close(found[1], found[0], rtol=1e-4, atol=1e-4)
