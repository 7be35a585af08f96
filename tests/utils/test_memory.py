import subprocess
import sys

import pytest
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


PAGES_OF_REPEATS = """
import resource, torch
from mask2former.utils.memory import keep_freed_memory
keep_freed_memory()
def pages_of_a_repeat():
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    torch.ones(1 << 22).add(1).mul_(2)
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before

print(min(pages_of_a_repeat() for _ in range(10)))
"""


@pytest.mark.skipif(sys.platform != "linux", reason="a setting of glibc's")
def test_freed_memory_is_used_again():
    done = subprocess.run([sys.executable, "-c", PAGES_OF_REPEATS], capture_output=True, text=True, check=True)
    assert int(done.stdout) < 1000  # two tensors of 16 MB are 8192 pages
