import torch

from mask2former.utils.memory import LARGE, empty_large


def test_large_and_small_results_are_plain_tensors():
    for size in ((0, 3), (5, 7), (3, LARGE // 2)):
        found = empty_large(size, torch.int16, torch.device("cpu"))
        assert found.shape == size
        assert found.dtype == torch.int16
        assert found.is_contiguous()
        found.fill_(-7)
        assert (found == -7).all()
