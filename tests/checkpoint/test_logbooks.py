import sys
from collections import OrderedDict
from types import ModuleType

import numpy as np
import pytest
import torch

from mask2former.checkpoint import load_checkpoint_file
from mask2former.utils.errors import UserError

MODULE = "mmengine.logging.history_buffer"


class HistoryBuffer:
    """The fields of mmengine's, and the table of its methods that it pickles along."""

    __module__ = MODULE

    def __init__(self):
        self._log_history, self._count_history, self._max_length = np.arange(3.0), np.array([1, 1, 2]), 1_000_000

    def mean(self): ...

    mean.__module__ = MODULE

    def __getstate__(self):
        return {**self.__dict__, "statistics_methods": OrderedDict(mean=HistoryBuffer.mean)}


@pytest.fixture
def checkpoint(tmp_path, monkeypatch):
    """A file as mmengine writes it in training; its package is not here when it is read."""
    module = ModuleType(MODULE)
    module.HistoryBuffer = HistoryBuffer
    contents = {
        "meta": {"epoch": 12, "seed": np.int64(3)},
        "state_dict": OrderedDict(a=torch.ones(2)),
        "message_hub": {"log_scalars": OrderedDict({"train/loss": HistoryBuffer()})},
    }
    with monkeypatch.context() as patch:
        for name in ("mmengine", "mmengine.logging", MODULE):
            patch.setitem(sys.modules, name, module)
        torch.save(contents, tmp_path / "epoch_12.pth")
    return str(tmp_path / "epoch_12.pth")


def test_weights_beside_a_training_s_log_are_read(checkpoint):
    with pytest.raises(Exception, match="Unsupported global"):
        torch.load(checkpoint, weights_only=True)
    contents = load_checkpoint_file(checkpoint)
    assert contents["model"]["a"].tolist() == [1, 1] and contents["meta"]["seed"] == 3
    (entry,) = contents["message_hub"]["log_scalars"].values()
    assert not isinstance(entry, HistoryBuffer) and not vars(entry)


class Calls:
    def __init__(self, *call):
        self.call = call

    def __reduce__(self):
        return self.call[0], self.call[1:]


@pytest.mark.parametrize("owner", ["text", OrderedDict, torch.ones(1)])
def test_an_attribute_of_anything_else_is_refused(owner, tmp_path):
    torch.save({"model": {"a": torch.ones(1)}, "more": Calls(getattr, owner, "copy")}, tmp_path / "w.pth")
    with pytest.raises(UserError, match=r"w\.pth was refused.*builtins\.getattr"):
        load_checkpoint_file(str(tmp_path / "w.pth"))


def test_code_is_refused_as_before(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    torch.save({"model": {"a": torch.ones(1)}, "more": Calls(eval, "open('ran', 'w')")}, tmp_path / "w.pth")
    with pytest.raises(UserError, match=r"w\.pth was refused.*eval"):
        load_checkpoint_file(str(tmp_path / "w.pth"))
    assert not (tmp_path / "ran").exists()
