import os
import pickle

import numpy as np
import pytest
import torch

from mask2former.checkpoint import load_checkpoint_file
from mask2former.utils.errors import UserError


class Runs:
    def __reduce__(self):
        return os.system, ("touch ran",)


WEIGHTS = {"a.weight": torch.arange(6.0).reshape(2, 3), "a.bias": torch.ones(2)}


def save_legacy(value, path):
    torch.save(value, path, _use_new_zipfile_serialization=False)


def save_pickle(value, path):
    arrays = {"model": {name: tensor.numpy() for name, tensor in value["model"].items()}, "matching_heuristics": True}
    path.write_bytes(pickle.dumps(arrays, 2))


@pytest.mark.parametrize("save", [torch.save, save_legacy, save_pickle])
@pytest.mark.parametrize("name", ["w.pth", "w.pkl", "w"])
def test_kinds_are_told_by_content(save, name, tmp_path):
    path = tmp_path / name
    save({"model": WEIGHTS}, path)
    got = load_checkpoint_file(str(path))["model"]
    assert all(torch.equal(got[n], t) for n, t in WEIGHTS.items()) and len(got) == 2


@pytest.mark.parametrize("wrap", [lambda w: w, lambda w: {"state_dict": w}, lambda w: {"model": w}])
def test_weights_are_found_under_model(wrap, tmp_path):
    torch.save(wrap(WEIGHTS), tmp_path / "w.pth")
    assert set(load_checkpoint_file(str(tmp_path / "w.pth"))["model"]) == set(WEIGHTS)


def test_foreign_byte_order_is_read(tmp_path):
    (tmp_path / "w.pkl").write_bytes(pickle.dumps({"a": np.arange(3, dtype=">f4")}, 2))
    assert load_checkpoint_file(str(tmp_path / "w.pkl"))["model"]["a"].tolist() == [0, 1, 2]


@pytest.mark.parametrize("save", [torch.save, save_legacy])
def test_code_in_a_torch_file_is_refused_unrun(save, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    save({"model": WEIGHTS, "extra": Runs()}, tmp_path / "w.pth")
    with pytest.raises(UserError, match=r"w\.pth was refused.*system"):
        load_checkpoint_file(str(tmp_path / "w.pth"))
    assert not (tmp_path / "ran").exists()


@pytest.mark.parametrize("save", [torch.save, save_legacy, save_pickle])
@pytest.mark.parametrize("share", [0.3, 0.9])
def test_cut_off_files(save, share, tmp_path):
    path = tmp_path / "w.pth"
    save({"model": {"a": torch.rand(1000)}}, path)
    data = path.read_bytes()
    path.write_bytes(data[: int(share * len(data))])
    with pytest.raises(UserError, match=r"w\.pth could not be read.*cut off or damaged"):
        load_checkpoint_file(str(path))


@pytest.mark.parametrize("content", [b"", b"<html>404</html>", b"version https://git-lfs.github.com/spec/v1\n"])
def test_other_content(content, tmp_path):
    (tmp_path / "w.pth").write_bytes(content)
    with pytest.raises(UserError, match=r"w\.pth is no weight file.*MODEL\.WEIGHTS"):
        load_checkpoint_file(str(tmp_path / "w.pth"))


@pytest.mark.parametrize("content", [{"epoch": 3}, [1, 2], {"model": "resnet"}])
def test_file_without_weights(content, tmp_path):
    torch.save(content, tmp_path / "w.pth")
    with pytest.raises(UserError, match="holds no weights"):
        load_checkpoint_file(str(tmp_path / "w.pth"))


def test_missing_file(tmp_path):
    with pytest.raises(UserError, match=r"nothing\.pth"):
        load_checkpoint_file(str(tmp_path / "nothing.pth"))
