import itertools

import pytest
import torch
import torch.nn.functional as F

from mask2former.modeling.matcher import HungarianMatcher
from mask2former.modeling.sampling import PointSampling
from mask2former.modeling.targets import Targets, dense_places
from mask2former.modeling.transformer_decoder.output import QueryPredictions
from mask2former.ops import point_sample
from mask2former.ops.mask_losses import cross_entropy_cost

WEIGHTS = {"class_weight": 2.0, "mask_weight": 5.0, "dice_weight": 5.0}


def point_matcher(points):
    return HungarianMatcher(**WEIGHTS, mask_cost=cross_entropy_cost, sampling=PointSampling(points, 3.0, 0.75))


def make(counts=(2, 3), L=2, Q=4, K=5, C=6, T=1, seed=0):
    g = torch.Generator().manual_seed(seed)
    rand = lambda *shape: torch.randn(*shape, generator=g, dtype=torch.float64)  # noqa: E731
    B, M = len(counts), sum(counts)
    predictions = QueryPredictions(rand(L, B, Q, K + 1), rand(L, B, Q, C), rand(B, C, T, 8, 8))
    classes, masks = torch.randint(K, (M,), generator=g), rand(M, T, 16, 16) > 0
    targets = Targets(classes, masks.flatten(), dense_places(M, T, 16, 16), (16, 16), list(counts))
    return predictions, targets


def dense(targets):
    """The masks [M,T,16,16]."""
    return targets.pixels.view(*targets.places.shape[:2], 16, 16)


def plain_cost(logits, label, probability, weights):
    """Cost of one pair, term by term as in the paper."""
    p = logits.sigmoid()
    cross_entropy = F.binary_cross_entropy_with_logits(logits, label)
    dice = 1 - (2 * (p * label).sum() + 1) / (p.sum() + label.sum() + 1)
    return (
        weights["mask_weight"] * cross_entropy + weights["dice_weight"] * dice - weights["class_weight"] * probability
    )


@pytest.mark.parametrize("T", [1, 2])
def test_assignments_are_the_cheapest(monkeypatch, T):
    predictions, targets = make(T=T)
    points = torch.rand(2, 20, 2, generator=torch.Generator().manual_seed(5), dtype=torch.float64)
    monkeypatch.setattr(point_sample, "random_points", lambda *_: points)
    assignment = point_matcher(20)(predictions, targets)
    first = [0, 2]
    for layer, image in itertools.product(range(2), range(2)):
        masks = torch.einsum("qc,cthw->tqhw", predictions.mask_embed[layer, image], predictions.mask_features[image])
        logits = torch.cat([point_sample.sample_map(m[None], points[image][None])[0] for m in masks], 1)
        mine = slice(first[image], first[image] + targets.counts[image])
        labels = torch.cat(
            [point_sample.sample_map(m.double()[None], points[image][None])[0] for m in dense(targets)[mine].unbind(1)],
            1,
        )
        probability = predictions.class_logits[layer, image].softmax(-1)
        classes = targets.classes[mine].tolist()
        cost = [
            [plain_cost(logits[q], y, probability[q, c], WEIGHTS) for y, c in zip(labels, classes)] for q in range(4)
        ]
        best = min(
            itertools.permutations(range(4), len(classes)), key=lambda qs: sum(cost[q][t] for t, q in enumerate(qs))
        )
        of_image = assignment.images == image
        found = dict(zip(assignment.targets[layer, of_image].tolist(), assignment.queries[layer, of_image].tolist()))
        assert [found[first[image] + t] for t in range(len(classes))] == list(best)


@pytest.mark.parametrize("counts", [(0, 0), (0, 3), (7, 1)])
def test_any_number_of_targets(counts):
    predictions, targets = make(counts)
    assignment = point_matcher(16)(predictions, targets)
    assert assignment.counts == [min(4, n) for n in counts]
    assert assignment.queries.shape == assignment.targets.shape == (2, sum(assignment.counts))
    for layer in range(2):
        pairs = list(zip(assignment.images.tolist(), assignment.queries[layer].tolist()))
        assert len(set(pairs)) == len(pairs)
        assert len(set(assignment.targets[layer].tolist())) == len(pairs)


def test_predictions_that_are_not_finite_still_get_an_assignment():
    """The loss carries them to the trainer, which stops all ranks together; one rank must not stop alone."""
    predictions, targets = make()
    predictions.class_logits[0, 0] = float("nan")
    assignment = point_matcher(16)(predictions, targets)
    assert sorted(assignment.targets[0].tolist()) == list(range(5))
