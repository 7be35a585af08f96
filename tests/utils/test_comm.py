"""Communication, in one process and between two."""

import torch.distributed as dist
import torch.multiprocessing as mp

from mask2former.utils import comm


def test_one_process_needs_no_group():
    assert (comm.get_rank(), comm.get_world_size()) == (0, 1)
    assert comm.is_main_process()
    comm.synchronize()
    assert comm.all_gather({"a": 1}) == [{"a": 1}]
    assert comm.gather("x") == ["x"]
    assert 0 <= comm.shared_random_seed() < 2**31


def _two_ranks(rank: int, store: str) -> None:
    dist.init_process_group("gloo", init_method=f"file://{store}", rank=rank, world_size=2)
    assert comm.get_rank() == rank and comm.get_world_size() == 2 and comm.is_main_process() == (rank == 0)
    assert comm.all_gather(("rank", rank)) == [("rank", 0), ("rank", 1)]
    assert comm.gather(rank) == ([0, 1] if rank == 0 else [])
    assert comm.gather(rank, dst=1) == ([0, 1] if rank == 1 else [])
    assert len(set(comm.all_gather(comm.shared_random_seed()))) == 1
    comm.synchronize()
    dist.destroy_process_group()


def test_two_processes(tmp_path):
    mp.spawn(_two_ranks, args=(str(tmp_path / "store"),), nprocs=2)
