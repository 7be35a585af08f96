import json
import os
import pickle
import warnings
import zipfile

import numpy as np
import pytest
import safetensors.torch
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


def save_tensors_in_pickle(value, path):
    """As the published scripts write weights of classifiers."""
    path.write_bytes(pickle.dumps({**value, "__author__": "third_party", "matching_heuristics": True}))


def save_safetensors(value, path):
    safetensors.torch.save_file(value["model"], path)


CONTAINERS = [torch.save, save_legacy, save_pickle, save_tensors_in_pickle, save_safetensors]


@pytest.mark.parametrize("save", CONTAINERS)
@pytest.mark.parametrize("name", ["w.pth", "w.pkl", "w"])
def test_kinds_are_told_by_content(save, name, tmp_path):
    path = tmp_path / name
    save({"model": WEIGHTS}, path)
    got = load_checkpoint_file(str(path))["model"]
    assert all(torch.equal(got[n], t) for n, t in WEIGHTS.items()) and len(got) == 2


@pytest.mark.parametrize(
    "wrap", [lambda w: w, lambda w: {"state_dict": w}, lambda w: {"model": w}, lambda w: {"blobs": w}]
)
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


@pytest.mark.parametrize("save", CONTAINERS)
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
    with pytest.raises(UserError, match=r"w\.pth is no weight file.*MODEL\.WEIGHTS") as error:
        load_checkpoint_file(str(tmp_path / "w.pth"))
    assert f"begins with {content[:4]!r}" in str(error.value)  # and no more of it


@pytest.mark.filterwarnings("ignore:.*is deprecated")
def test_other_archives_are_named(tmp_path):
    script = str(tmp_path / "script.pt")
    torch.jit.save(torch.jit.script(torch.nn.Linear(2, 2)), script)
    with zipfile.ZipFile(tmp_path / "w.pth", "w") as archive:
        archive.writestr("readme.txt", "hello")
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        with pytest.raises(UserError, match=r"script\.pt is a TorchScript program"):
            load_checkpoint_file(script)
        with pytest.raises(UserError, match=r"w\.pth is a zip, but no torch file"):
            load_checkpoint_file(str(tmp_path / "w.pth"))


@pytest.mark.parametrize("content", [{"epoch": 3}, [1, 2], {"model": "resnet"}])
def test_file_without_weights(content, tmp_path):
    torch.save(content, tmp_path / "w.pth")
    with pytest.raises(UserError, match="holds no weights.*'model', 'state_dict', 'blobs'"):
        load_checkpoint_file(str(tmp_path / "w.pth"))


def test_missing_file(tmp_path):
    with pytest.raises(UserError, match=r"nothing\.pth"):
        load_checkpoint_file(str(tmp_path / "nothing.pth"))


def test_names_of_the_hub_are_told_from_paths(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "output").mkdir()
    name = "facebook/mask2former-swin-tiny"
    with pytest.raises(UserError, match=f"huggingface-cli download {name} --local-dir FOLDER"):
        load_checkpoint_file(name)
    for path in ("output/mask2former-swin-tiny", "outptu/model_final.pth", "../x/y", "name"):
        with pytest.raises(UserError) as error:
            load_checkpoint_file(path)
        assert "huggingface" not in str(error.value)


# ---------------------------------------------------------------- folders of Hugging Face's libraries


def save_parts(folder, kind="safetensors"):
    """As save_pretrained does with large models."""
    stem, suffix = ("model", ".safetensors") if kind == "safetensors" else ("pytorch_model", ".bin")
    weight_map = {}
    for i, (name, tensor) in enumerate(WEIGHTS.items(), start=1):
        part = f"{stem}-0000{i}-of-00002{suffix}"
        save = safetensors.torch.save_file if kind == "safetensors" else torch.save
        save({name: tensor}, folder / part)
        weight_map[name] = part
    index = folder / f"{stem}{suffix}.index.json"
    index.write_text(json.dumps({"metadata": {}, "weight_map": weight_map}))
    return index


def assert_read(path):
    got = load_checkpoint_file(str(path))["model"]
    assert got.keys() == WEIGHTS.keys() and all(torch.equal(got[n], t) for n, t in WEIGHTS.items())


@pytest.mark.parametrize("kind", ["safetensors", "bin"])
def test_parts_are_put_together(kind, tmp_path):
    assert_read(save_parts(tmp_path, kind))
    assert_read(tmp_path)


def test_one_file_in_a_folder(tmp_path):
    torch.save(WEIGHTS, tmp_path / "pytorch_model.bin")
    assert_read(tmp_path)
    safetensors.torch.save_file(WEIGHTS, tmp_path / "model.safetensors")
    torch.save({"other": torch.ones(1)}, tmp_path / "pytorch_model.bin")
    assert_read(tmp_path)  # safetensors before pickles


def test_folder_without_weights(tmp_path):
    (tmp_path / "config.json").write_text("{}")
    with pytest.raises(UserError, match=r"folder without weights: expected one of model\.safetensors.*MODEL\.WEIGHTS"):
        load_checkpoint_file(str(tmp_path))


def test_missing_part(tmp_path):
    index = save_parts(tmp_path)
    (tmp_path / "model-00002-of-00002.safetensors").unlink()
    with pytest.raises(UserError, match=r"not beside it: model-00002-of-00002\.safetensors"):
        load_checkpoint_file(str(index))


def test_part_that_lacks_a_tensor(tmp_path):
    index = save_parts(tmp_path)
    safetensors.torch.save_file({"other": torch.ones(1)}, tmp_path / "model-00001-of-00002.safetensors")
    with pytest.raises(UserError, match=r"00001-of-00002\.safetensors lacks 1 of the 1 tensors.*a\.weight"):
        load_checkpoint_file(str(index))


@pytest.mark.parametrize(
    "content",
    ['{"a": 1}', '{"weight_map": []}', '{"weight_map": {"a": 1}}', "{"],
)
def test_json_that_is_no_index(content, tmp_path):
    (tmp_path / "model.json").write_text(content)
    with pytest.raises(UserError, match=r"model\.json is no index of weights"):
        load_checkpoint_file(str(tmp_path / "model.json"))


@pytest.mark.parametrize("name", ["part", "model.json"])
def test_a_part_that_is_an_index_is_refused(name, tmp_path):
    index = json.dumps({"weight_map": {"a": name}})
    for file in ("model.safetensors.index.json", name):
        (tmp_path / file).write_text(index)
    with pytest.raises(UserError, match=f"{name} is no weight file"):
        load_checkpoint_file(str(tmp_path))


def test_a_part_may_be_a_link_whose_target_is_not_quoted(tmp_path):
    folder = tmp_path / "snapshot"
    folder.mkdir()
    index = save_parts(folder)
    part, elsewhere = folder / "model-00001-of-00002.safetensors", tmp_path / "blob"
    part.rename(elsewhere)
    part.symlink_to(elsewhere)  # as caches of Hugging Face have them
    assert_read(index)
    elsewhere.write_text("root:secret")
    with pytest.raises(UserError, match="no weight file") as error:
        load_checkpoint_file(str(index))
    assert "root" in str(error.value) and "root:" not in str(error.value)


def test_names_in_an_index_that_would_spoil_a_message(tmp_path):
    index = tmp_path / "model.safetensors.index.json"
    index.write_text(json.dumps({"weight_map": {"a": "x\0, y\n", **{str(i): f"part{i}" for i in range(50)}}}))
    with pytest.raises(UserError, match=r"not beside it: 'x\\x00, y\\n', part0, part1, part2 and 47 more"):
        load_checkpoint_file(str(index))
    index.write_text('{"weight_map": {}}')
    with pytest.raises(UserError, match="names no files"):
        load_checkpoint_file(str(index))


def test_code_in_a_part_is_refused_unrun(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    index = save_parts(tmp_path, "bin")
    torch.save({"a.weight": Runs()}, tmp_path / "pytorch_model-00001-of-00002.bin")
    with pytest.raises(UserError, match=r"00001-of-00002\.bin was refused.*system"):
        load_checkpoint_file(str(index))
    assert not (tmp_path / "ran").exists()
