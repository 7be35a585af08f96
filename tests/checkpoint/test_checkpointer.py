import random

import numpy as np
import pytest
import torch

from mask2former.checkpoint import Checkpointer, capture_rng, preserved_rng, restore_rng
from mask2former.utils.errors import UserError

CONTENTS = {"model": {"a": torch.arange(3.0)}, "iteration": 4, "labels": {"names": ["x"]}}


def draw():
    return torch.rand(1).item(), np.random.rand(), np.random.randn(), random.random(), random.gauss(0, 1)


def test_saves_and_finds_the_newest(tmp_path):
    checkpointer = Checkpointer(tmp_path / "out")
    assert checkpointer.last() is None and checkpointer.load_last() is None
    checkpointer.save("model_0000004", CONTENTS)
    checkpointer.save("model_final", {**CONTENTS, "iteration": 9})
    assert (tmp_path / "out" / "last_checkpoint").read_text() == "model_final.pth"
    assert checkpointer.load_last()["iteration"] == 9
    assert sorted(p.name for p in (tmp_path / "out").iterdir()) == [
        "last_checkpoint",
        "model_0000004.pth",
        "model_final.pth",
    ]


def test_failed_write_leaves_the_former_files(tmp_path, monkeypatch):
    checkpointer = Checkpointer(tmp_path)
    checkpointer.save("model_final", CONTENTS)

    def full_disk(contents, path):
        path.write_bytes(b"half")
        raise RuntimeError("No space left on device")

    monkeypatch.setattr(torch, "save", full_disk)
    with pytest.raises(UserError, match=r"model_final\.pth could not be written.*OUTPUT_DIR"):
        checkpointer.save("model_final", {**CONTENTS, "iteration": 9})
    assert checkpointer.load_last()["iteration"] == 4
    assert not list(tmp_path.glob("*.part"))


def test_marker_of_a_lost_file(tmp_path):
    (tmp_path / "last_checkpoint").write_text("model_0000004.pth")
    with pytest.raises(UserError, match=r"names model_0000004\.pth, which is not in"):
        Checkpointer(tmp_path).last()


def test_random_states_survive_a_file(tmp_path):
    draw()  # NumPy and Python cache the second of two gaussians
    torch.save(capture_rng(), tmp_path / "rng.pth")
    expected = [draw() for _ in range(3)]
    restore_rng(torch.load(tmp_path / "rng.pth", weights_only=True))
    assert [draw() for _ in range(3)] == expected


def test_preserved_rng():
    state = capture_rng()
    expected = draw()
    restore_rng(state)
    with preserved_rng():
        draw()
    assert draw() == expected
