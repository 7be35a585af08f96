"""Post-processing in rows and with one resize gives what the published chain of full-size steps gives."""

import sys
from pathlib import Path

import pytest
import torch

from mask2former.modeling import resizing
from mask2former.modeling.postprocess import instances, panoptic, semantic
from mask2former.modeling.resizing import Geometry

sys.path.insert(0, str(Path(__file__).parent))
import two_steps

GEOMETRIES = {
    "larger": Geometry(padded=(64, 96), image=(50, 83), output=(101, 167)),
    "smaller": Geometry(padded=(64, 96), image=(61, 96), output=(19, 23)),
    "as the image": Geometry(padded=(64, 96), image=(57, 90), output=(57, 90)),
    "as padded": Geometry(padded=(64, 96), image=(64, 96), output=(64, 96)),
    "one row, one column": Geometry(padded=(64, 96), image=(1, 1), output=(1, 5)),
    "wider, lower": Geometry(padded=(64, 96), image=(64, 70), output=(11, 203)),
    "stride 1": Geometry(padded=(16, 24), image=(15, 20), output=(40, 7)),
}
K = 4


@pytest.fixture(params=GEOMETRIES)
def geometry(request):
    return GEOMETRIES[request.param]


@pytest.fixture(params=[2000, 2**20])
def chunk(request, monkeypatch):
    """Some rows at a time, and all."""
    monkeypatch.setattr(resizing, "CHUNK", request.param)


def predictions(queries, dtype=torch.float64, seed=0):
    """Class logits [Q,K+1], half of them sure of something, and mask logits [Q,16,24], smooth and large."""
    draw = torch.Generator().manual_seed(seed)
    classes = torch.randn(queries, K + 1, generator=draw, dtype=torch.float64)
    classes += 6 * torch.nn.functional.one_hot(torch.arange(queries) % (K + 1), K + 1)
    coarse = 8 * torch.randn(queries, 6, 8, generator=draw, dtype=torch.float64)
    return classes.to(dtype), two_steps.resize(coarse, (16, 24)).to(dtype)


@pytest.mark.usefixtures("chunk")
def test_one_resize_is_the_chain(geometry):
    _, maps = predictions(7)
    torch.testing.assert_close(geometry.to_output(maps), two_steps.to_output(maps, geometry), atol=1e-11, rtol=0)
    assert geometry.to_output(maps[:0]).shape == (0, *geometry.output)


@pytest.mark.usefixtures("chunk")
@pytest.mark.parametrize("resize_first", [True, False])
def test_semantic(geometry, resize_first):
    found = semantic(*predictions(11), geometry, resize_first)
    expected = two_steps.semantic(*predictions(11), geometry, resize_first)
    torch.testing.assert_close(found, expected, atol=1e-12, rtol=0)


@pytest.mark.usefixtures("chunk")
@pytest.mark.parametrize("fill", [True, False])
@pytest.mark.parametrize("queries", [1, 19])
def test_panoptic(geometry, queries, fill):
    settings = {"thing_ids": frozenset({0, 2}), "score_threshold": 0.3, "overlap_threshold": 0.4, "fill": fill}
    segments, info = panoptic(*predictions(queries), geometry, **settings)
    expected, expected_info = two_steps.panoptic(*predictions(queries), geometry, **settings)
    assert info == expected_info
    assert segments.dtype == torch.int32
    assert torch.equal(segments, expected)


@pytest.mark.usefixtures("chunk")
@pytest.mark.parametrize(("queries", "top_k"), [(1, 1), (19, 40)])
def test_instances(geometry, queries, top_k):
    found = instances(*predictions(queries), geometry, top_k=top_k, classes=None)
    scores, classes, masks = two_steps.instances(*predictions(queries), geometry, top_k)
    order, expected = found.scores.argsort(), scores.argsort()
    torch.testing.assert_close(found.scores[order], scores[expected], atol=1e-12, rtol=0)
    assert found.pred_masks.dtype == torch.bool
    assert torch.equal(found.pred_masks.sum((0, 1, 2)), masks.sum((0, 1, 2)))
    some = found.scores[order] > 0  # the others, whose masks are empty, are in no order
    assert torch.equal(found.pred_classes[order][some], classes[expected][some])
    assert torch.equal(found.pred_masks[order], masks[expected])


@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float32, 1e-4), (torch.float16, 2e-2), (torch.bfloat16, 1e-1)])
def test_less_precise_inputs(geometry, dtype, tolerance):
    """The result is as precise as its type, and has it."""
    classes, masks = predictions(9, dtype)
    exact = two_steps.semantic(classes.double(), masks.double(), geometry, True)
    found = semantic(classes, masks, geometry, True)
    assert found.dtype == dtype
    torch.testing.assert_close(found.double(), exact, atol=tolerance, rtol=0)
    mask_sizes = instances(classes, masks, geometry, top_k=36, classes=None).pred_masks.flatten(1).sum(1)
    exact_sizes = two_steps.instances(classes.double(), masks.double(), geometry, 36)[2].flatten(1).sum(1)
    assert mask_sizes.sort().values.tolist() == exact_sizes.sort().values.tolist()


def test_gradients_pass():
    geometry = GEOMETRIES["larger"]
    ours, theirs = ([x.requires_grad_() for x in predictions(3)] for _ in range(2))
    semantic(*ours, geometry, resize_first=False)[1].sum().backward()
    two_steps.semantic(*theirs, geometry, resize_first=False)[1].sum().backward()
    for a, b in zip(ours, theirs):
        torch.testing.assert_close(a.grad, b.grad)
    ours = [x.requires_grad_() for x in predictions(3)]
    instances(*ours, geometry, top_k=5, classes=None).scores.sum().backward()
    assert ours[1].grad.abs().sum() > 0


def test_only_the_result_is_of_full_size():
    """No 40 masks of 640x480 in floats (49 MB) at a time, by what torch's allocator was asked for."""
    geometry = Geometry(padded=(64, 96), image=(64, 96), output=(480, 640))
    classes, masks = predictions(40, torch.float32)
    settings = {"thing_ids": frozenset({0}), "score_threshold": 0.0, "overlap_threshold": 0.0}
    with torch.profiler.profile(profile_memory=True) as profile:
        panoptic(classes, masks, geometry, **settings)
        instances(classes, masks, geometry, top_k=40, classes=None)
        semantic(classes, masks, geometry, resize_first=True)
    events = profile.profiler.kineto_results.events()
    largest = max(event.nbytes() for event in events if event.name() == "[memory]")
    assert largest < 13e6  # the masks themselves, as bytes, are 12.3 MB
