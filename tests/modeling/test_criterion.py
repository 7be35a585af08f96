"""The criterion against the paper's definitions, computed one mask at a time."""

import pytest
import torch

from mask2former.modeling.criterion import LossTerm, SetCriterion
from mask2former.modeling.losses import dice, sigmoid_cross_entropy
from mask2former.modeling.matcher import HungarianMatcher
from mask2former.modeling.sampling import PointSampling
from mask2former.modeling.targets import Targets, dense_places
from mask2former.modeling.transformer_decoder.output import QueryPredictions
from mask2former.ops import point_sample
from mask2former.ops.mask_losses import cross_entropy_cost

K, P, NO_OBJECT = 3, 30, 0.1
CLASS_WEIGHTS = [1.0, 2.5, 0.5]
POINTS = PointSampling(P, 3.0, 0.75)


def make(counts, T, L=2, Q=4, C=6):
    g = torch.Generator().manual_seed(0)
    rand = lambda *shape: torch.randn(*shape, generator=g, dtype=torch.float64)  # noqa: E731
    B, M = len(counts), sum(counts)
    predictions = QueryPredictions(rand(L, B, Q, K + 1), rand(L, B, Q, C), rand(B, C, T, 8, 8))
    classes, masks = torch.randint(K, (M,), generator=g), rand(M, T, 16, 16) > 0
    return predictions, Targets(classes, masks.flatten(), dense_places(M, T, 16, 16), (16, 16), list(counts))


def dense(targets):
    """The masks [M,T,16,16]."""
    return targets.pixels.view(*targets.places.shape[:2], 16, 16)


def build():
    return SetCriterion(
        K,
        matcher=HungarianMatcher(2.0, 5.0, 5.0, mask_cost=cross_entropy_cost, sampling=POINTS),
        class_weight=2.0,
        class_weights=[*CLASS_WEIGHTS, NO_OBJECT],
        terms=[LossTerm("mask", 5.0, sigmoid_cross_entropy), LossTerm("dice", 5.0, dice)],
        sampling=POINTS,
    ).double()


def at(mask, points):
    """A float map [h,w] at points [P,2]."""
    return point_sample.sample_map(mask[None, None], points[None])[0, 0]


def expected(predictions, targets, assignment, layer, points):
    """loss_ce, loss_mask, loss_dice of one layer, with loops over queries and masks."""
    pairs = {
        (image, query): target
        for image, query, target in zip(
            assignment.images.tolist(), assignment.queries[layer].tolist(), assignment.targets[layer].tolist()
        )
    }
    ce = weight_sum = mask_loss = dice_loss = 0.0
    _, B, Q, _ = predictions.class_logits.shape
    for image in range(B):
        for query in range(Q):
            target = pairs.get((image, query))
            wanted = K if target is None else int(targets.classes[target])
            weight = NO_OBJECT if target is None else CLASS_WEIGHTS[wanted]
            ce -= weight * float(predictions.class_logits[layer, image, query].log_softmax(0)[wanted])
            weight_sum += weight
            if target is None:
                continue
            for t in range(targets.places.shape[1]):
                features = predictions.mask_features[image, :, t]
                logits = at(torch.einsum("c,chw->hw", predictions.mask_embed[layer, image, query], features), points)
                labels, p = at(dense(targets)[target, t].double(), points), logits.sigmoid()
                mask_loss += float(-(labels * p.log() + (1 - labels) * (1 - p).log()).mean())
                dice_loss += float(1 - (2 * (p * labels).sum() + 1) / (p.sum() + labels.sum() + 1))
    masks = max(sum(targets.counts), 1)
    return 2 * ce / weight_sum, 5 * mask_loss / masks, 5 * dice_loss / masks


@pytest.mark.parametrize(("counts", "T"), [((2, 3), 1), ((0, 1), 1), ((6, 1), 1), ((1, 2), 2)])
def test_losses_follow_the_definition(monkeypatch, counts, T):
    predictions, targets = make(counts, T)
    criterion = build()
    points = torch.rand(P, 2, generator=torch.Generator().manual_seed(3), dtype=torch.float64)
    monkeypatch.setattr(point_sample, "random_points", lambda n, *_: points.expand(n, -1, -1))
    monkeypatch.setattr(point_sample, "uncertain_points", lambda logits, *_: points.expand(len(logits), -1, -1))
    assignment = criterion.matcher(predictions, targets)
    losses = criterion(predictions, targets)
    for layer, suffix in ((0, "_0"), (1, "")):
        wanted = expected(predictions, targets, assignment, layer, points)
        got = [float(losses[f"loss_{name}{suffix}"]) for name in ("ce", "mask", "dice")]
        assert got == pytest.approx(wanted, rel=1e-6)
