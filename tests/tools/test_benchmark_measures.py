"""What the benchmark measures beside time: peak memory of another process, FLOPs, and the plain way of a result."""

from functools import partial

import pytest
import torch
import torch.nn.functional as F
from pycocotools import mask as coco_mask

from mask2former.modeling.backbone.resnet import BottleneckBlock

# Q queries, K classes


def test_peak_memory_is_beyond_what_was_there_and_what_is_returned(tool):
    """Of two tensors of 32 MB at a time one is returned; what the preparation holds, and this process, do not count."""
    memory = tool("_benchmarks.memory")
    if not memory._RESET.exists():
        pytest.skip("this system does not tell peaks")
    work = "lambda held=__import__('torch').ones(2**24): held[: 2**23] + 1 + 1"
    found = memory.peak_memory(partial(eval, work), 2, torch.device("cpu"))
    assert found == pytest.approx(2**25, abs=2**22)


def test_flops_are_those_of_products_and_convolutions(tool):
    count = tool("_benchmarks.floor").count_flops
    left, right = torch.ones(3, 5), torch.ones(5, 7)
    assert count(lambda: (left @ right).relu()) == 2 * 3 * 5 * 7
    assert count(lambda: F.conv2d(torch.ones(1, 2, 6, 6), torch.ones(4, 2, 3, 3))) == 2 * (4 * 4) * 4 * (2 * 3 * 3)


@pytest.mark.parametrize("shortcut", [True, False])
@pytest.mark.parametrize("training", [True, False])
def test_flops_do_not_depend_on_which_kernels_run(tool, shortcut, training):
    """Of a block of a ResNet, whose sums and 3x3 convolution have kernels of their own for channels-last maps."""
    settings = {"norm": "FrozenBN", "stride": 1, "num_groups": 1, "stride_in_1x1": False, "dilation": 1}
    block = BottleneckBlock(32 if shortcut else 64, 64, 32, **settings)
    x = torch.randn(1, 32 if shortcut else 64, 16, 16, requires_grad=training)

    def count(layout):
        with torch.set_grad_enabled(training):
            maps = x.contiguous(memory_format=layout).clone()

            def run():
                out = block(maps)
                return out.sum().backward() if training else out

            return tool("_benchmarks.floor").count_flops(run)

    assert count(torch.channels_last) == count(torch.contiguous_format) > 0


@pytest.fixture
def published(tool):
    return tool("_benchmarks.published")


@pytest.fixture
def halves(published):
    """Query 0: thing 0 on the left half; 1: stuff 1 on the right one; 2: thing 0 hidden by query 0; 3: nothing.

    The maps have the wanted size, 4x8, so that no resize changes them.
    """
    masks = torch.full((4, 4, 8), -20.0)
    masks[0, :, :4], masks[1, :, 4:], masks[2, :, 2:4] = 20.0, 20.0, 1.0
    logits = torch.zeros(4, 3)
    for query, category in enumerate((0, 1, 0, 2)):  # 2: no object
        logits[query, category] = 10.0
    return logits, masks, published.Sizes(padded=(4, 8), image=(4, 8), output=(4, 8))


def test_plain_panoptic(published, halves):
    ids, segments = published.panoptic(*halves, {0}, 0.8, 0.8)
    assert segments == [
        {"id": 1, "isthing": True, "category_id": 0},
        {"id": 2, "isthing": False, "category_id": 1},
    ]
    assert ids.tolist() == [[1] * 4 + [2] * 4] * 4


def test_plain_instances(published, halves):
    found = published.instances(*halves, 3)
    assert [category for _, category, _ in found].count(0) == 2
    areas = sorted(int(coco_mask.area(rle)) for *_, rle in found)
    assert areas == [8, 16, 16]
    probability = torch.tensor([10.0, 0, 0]).softmax(0)[0].item()
    hidden = min(found, key=lambda instance: instance[0])
    assert hidden[0] == pytest.approx(probability * torch.tensor(1.0).sigmoid().item(), abs=1e-5)


def test_plain_semantic(published, halves):
    scores = published.semantic(*halves)
    assert scores.shape == (2, 4, 8)
    assert (scores[0, :, :4] > 0.99).all()
    assert (scores[1, :, 4:] > 0.99).all()
    assert (scores[0, :, 4:] < 0.01).all()
