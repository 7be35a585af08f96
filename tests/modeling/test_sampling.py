"""Whole masks in matching and loss against plain definitions, one mask at a time."""

import pytest
import torch
import torch.nn.functional as F
from torchvision.ops import sigmoid_focal_loss

from mask2former.modeling.losses import dice, sigmoid_cross_entropy, sigmoid_focal
from mask2former.modeling.mask_costs import Pairs
from mask2former.modeling.matcher import HungarianMatcher
from mask2former.modeling.sampling import AllPixels
from mask2former.modeling.targets import image_targets
from mask2former.modeling.transformer_decoder.output import QueryPredictions
from mask2former.ops.mask_losses import cross_entropy_cost, focal_cost
from mask2former.structures import CompactMasks, Instances

SIZE = (23, 30)  # padded; no multiple of the map's size, so that rounding is seen
DEVICE = torch.device("cpu")


@pytest.fixture
def masks():
    """Boolean masks of two images [3,20,30] and [2,23,25]."""
    g = torch.Generator().manual_seed(0)
    return [torch.rand(n, h, w, generator=g) > 0.5 for n, h, w in ((3, 20, 30), (2, 23, 25))]


def targets_of(masks):
    return image_targets(
        [Instances(tuple(m.shape[1:]), gt_classes=torch.arange(len(m)), gt_masks=m) for m in masks], SIZE, DEVICE
    )


def padded(masks):
    """[5,23,30] float."""
    return torch.cat([F.pad(m.double(), (0, SIZE[1] - m.shape[2], 0, SIZE[0] - m.shape[1])) for m in masks])


def test_matching_sees_features_and_nearest_pixels_of_the_targets(masks):
    features = torch.randn(2, 4, 1, 6, 8, dtype=torch.float64)
    sampled, coverage, labels = AllPixels().for_matching(features, targets_of(masks))
    assert torch.equal(sampled, features.flatten(2).transpose(1, 2))
    assert torch.equal(coverage, torch.ones(2, 48, dtype=torch.float64))
    wanted = F.interpolate(padded(masks)[:, None], size=(6, 8), mode="nearest").flatten(1)
    assert torch.equal(torch.cat(list(labels)), wanted)


def test_the_loss_sees_resized_masks_and_every_pixel_of_the_targets(masks):
    logits = torch.randn(2, 5, 1, 6, 8, dtype=torch.float64)  # in two portions
    chosen = torch.tensor([[0, 3, 4, 1, 2], [2, 1, 0, 4, 3]])
    for layer, portions in enumerate(AllPixels().for_loss(logits, targets_of(masks), chosen)):
        seen, labels = (torch.cat(parts) for parts in zip(*(portion() for portion in portions)))
        resized = F.interpolate(logits[layer], size=SIZE, mode="bilinear", align_corners=False)
        torch.testing.assert_close(seen, resized.flatten(1))
        assert torch.equal(labels, padded(masks)[chosen[layer]].flatten(1))


def test_compact_masks_are_read_alike(masks):
    """Crops, and numbers in one map, give what boolean masks give."""
    crops = CompactMasks.from_crops(list(masks[0][:, 2:, 3:]), [(3, 2)] * 3, (20, 30))
    numbers = CompactMasks.from_numbers(masks[1][0].to(torch.uint8) + 1, torch.tensor([1, 2]))
    dense = [crops.tensor, numbers.tensor]
    (a, _), (b, _) = (
        (torch.cat(list(AllPixels().for_matching(torch.zeros(2, 1, 1, 6, 8), targets_of(m))[2])), m)
        for m in ([crops, numbers], dense)
    )
    assert torch.equal(a, b)


def test_no_targets_leave_no_samples_and_a_gradient():
    targets = targets_of([torch.zeros(0, 20, 30), torch.zeros(0, 23, 25)])
    logits = torch.zeros(2, 0, 1, 6, 8, requires_grad=True)
    losses = [
        term(*portion(), 1.0)
        for portions in AllPixels().for_loss(logits, targets, torch.zeros(2, 0, dtype=torch.int64))
        for portion in portions
        for term in (sigmoid_focal, dice)
    ]
    assert all(loss == 0 for loss in losses)
    sum(losses).backward()


@pytest.mark.parametrize(("cost", "loss"), [(cross_entropy_cost, sigmoid_cross_entropy), (focal_cost, sigmoid_focal)])
def test_the_cost_of_a_pair_is_its_loss(cost, loss):
    logits, labels = torch.randn(8, 40, dtype=torch.float64) * 4, (torch.rand(3, 40) > 0.5).double()
    samples = torch.eye(40, dtype=torch.float64)
    costs = Pairs(logits, samples, labels, None, torch.ones(40)).costs(cost)
    wanted = [[[term(q[None], y[None], 1.0) for y in labels] for q in logits] for term in (loss, dice)]
    torch.testing.assert_close(torch.stack(costs), torch.tensor(wanted, dtype=torch.float64))


def test_focal_loss_is_torchvisions():
    logits, labels = torch.randn(3, 50) * 5, (torch.rand(3, 50) > 0.5).float()
    wanted = sigmoid_focal_loss(logits, labels, alpha=0.25, gamma=2).mean(1).sum() / 2
    torch.testing.assert_close(sigmoid_focal(logits, labels, 2.0), wanted)


def test_whole_masks_find_their_own_queries(masks):
    """Queries that predict the targets, in another order, are matched to them."""
    targets = targets_of([masks[0], masks[0]])
    *_, labels = AllPixels().for_matching(torch.zeros(2, 1, 1, 6, 8), targets)
    features = next(iter(labels)).view(1, 3, 1, 6, 8).expand(2, -1, -1, -1, -1) * 8 - 4  # channel k is target k
    order = torch.tensor([2, 0, 1])
    predictions = QueryPredictions(torch.zeros(1, 2, 3, 4), torch.eye(3)[order].expand(1, 2, 3, 3), features)
    matcher = HungarianMatcher(1.0, 20.0, 1.0, mask_cost=focal_cost, sampling=AllPixels())
    assignment = matcher(predictions, targets)
    assert torch.equal(assignment.targets[0], torch.cat([order, order + 3]))
