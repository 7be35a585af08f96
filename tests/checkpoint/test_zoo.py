"""Short names of published checkpoints; the network is a server on this machine."""

import hashlib
import json
import pickle
import threading
from dataclasses import replace
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import ClassVar
from urllib import request

import numpy as np
import pytest

from mask2former.checkpoint import load_checkpoint_file
from mask2former.checkpoint import zoo as zoo_module
from mask2former.checkpoint.zoo import find_model, zoo, zoo_path
from mask2former.utils.errors import UserError

CONTENT = pickle.dumps({"model": {"a.weight": np.arange(6, dtype=np.float32)}}, 2)


class Quiet(SimpleHTTPRequestHandler):
    """Serves files, and notes in `asked` which, instead of printing."""

    asked: ClassVar[list[str]] = []

    def log_message(self, *args):
        self.asked.append(self.path)


@pytest.fixture
def published(tmp_path, monkeypatch):
    """A function that publishes bytes under a file name and returns the model, which stands in the zoo as `a/b/C`."""
    served = tmp_path / "served" / "models"
    served.mkdir(parents=True)
    monkeypatch.setenv("FVCORE_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(Quiet, "asked", [])
    server = ThreadingHTTPServer(("127.0.0.1", 0), partial(Quiet, directory=str(served.parent)))
    threading.Thread(target=server.serve_forever, daemon=True).start()

    def publish(file, content=CONTENT):
        if content is not None:
            (served / file).write_bytes(content)
        address = f"http://127.0.0.1:{server.server_port}/models/{file}"
        model = replace(find_model("coco/panoptic/R50"), name="a/b/C", address=address)
        monkeypatch.setattr(zoo_module, "zoo", lambda: {model.name: model})
        return model

    yield publish
    server.shutdown()
    server.server_close()


def digits(algorithm, count, content=CONTENT):
    return hashlib.new(algorithm, content).hexdigest()[:count]


def test_every_published_checkpoint_has_a_name(shared_dir):
    rows = json.loads((shared_dir / "reference" / "model_zoo.json").read_text())
    addresses = [row["checkpoint"] for row in rows if "checkpoint" in row]
    assert [model.address for model in zoo().values()] == addresses
    assert len(zoo()) == 108


def test_figures_are_the_published_ones(shared_dir):
    published_keys = {"PQ": "PQ", "mIoU": "mIoU", "AP": "AP", "AP50": "AP50", "mask mAP": "AP", "box mAP": "box AP"}
    published_keys |= {"Boundary AP": "boundary AP", "mIoU (ms+flip)": "mIoU ms+flip", "Mem (GB)": "memory (GB)"}
    published_keys |= {"mIoU (multiscale)": "mIoU ms+flip", "train mem (MB)": "memory (MB)"}
    rows = json.loads((shared_dir / "reference" / "model_zoo.json").read_text())
    by_address = {row["checkpoint"]: row for row in rows if "checkpoint" in row}
    for model in zoo().values():
        row = by_address[model.address]
        theirs = {ours: row[key] for key, ours in published_keys.items() if row.get(key, "-") != "-"}
        assert {name: str(value) for name, value in model.figures.items() if value is not None} == theirs, model.name


def test_names_say_what_the_file_is():
    for model in zoo().values():
        dataset, task, backbone = model.name.split("/")
        assert task in ("semantic", "instance", "panoptic")
        assert backbone.split("-")[0] in ("R50", "R101", "R101c", "Swin", "DiNAT")
        assert ("IN21k" in backbone) == ("in21k" in model.address.lower())
        assert (dataset in model.address.replace("_", "-")) or dataset.startswith("youtubevis")


def test_recipes_exist_and_are_those_of_the_checkpoints(repo_dir):
    known = [model for model in zoo().values() if model.recipe]
    assert all(model.recipe_path == repo_dir / model.recipe for model in known)
    assert len(known) == 108
    for model in known:
        assert (repo_dir / model.recipe).is_file(), model.name
        if "fbaipublicfiles" in model.address:  # one recipe was renamed when its checkpoint was out already
            stem = Path(model.recipe).stem
            assert Path(model.address).parent.name in (stem, stem.replace("maskformer2", "maskformer")), model.name
        if "openmmlab" in model.address:
            assert Path(model.recipe).stem == Path(model.address).parent.name


@pytest.mark.parametrize("algorithm", ["sha256", "sha1", "md5"])
@pytest.mark.parametrize("form", ["model_final_{}.pkl", "mask2former_r50_20230118_125535-{}.pth"])
def test_a_name_is_downloaded_once_checked_and_loaded(algorithm, form, published, tmp_path):
    model = published(form.format(digits(algorithm, 8)))
    assert model.digits == digits(algorithm, 8)
    for _ in range(2):
        assert load_checkpoint_file("zoo://a/b/C")["model"]["a.weight"].tolist() == [0, 1, 2, 3, 4, 5]
    assert len(Quiet.asked) == 1
    assert zoo_path("a/b/C") == str(model.cached) == str(tmp_path / "cache" / "models" / Path(model.address).name)


def test_a_name_without_a_hash_is_not_checked(published):
    model = published("mask2former_dinat_large_coco_panoptic.pth")
    assert model.digits is None
    assert "a.weight" in load_checkpoint_file("zoo://a/b/C")["model"]


def test_another_file_is_refused_and_stays_usable_by_its_path(published):
    model = published("model_final_94dc52.pkl")
    with pytest.raises(UserError, match=r"not the published file of zoo://a/b/C.*94dc52.*sha256.*delete it") as error:
        load_checkpoint_file("zoo://a/b/C", "--weights")
    assert str(model.cached) in str(error.value) and "paths are not checked. --weights named it" in str(error.value)
    assert "a.weight" in load_checkpoint_file(str(model.cached))["model"]


def test_a_file_put_into_the_cache_needs_no_network(published):
    model = published(f"model_final_{digits('sha256', 6)}.pkl", content=None)
    model.cached.parent.mkdir(parents=True)
    model.cached.write_bytes(CONTENT)
    assert zoo_path("zoo://a/b/C") == str(model.cached) and Quiet.asked == []


def test_offline_the_way_out_is_told(published, monkeypatch):
    model = published("model_final_94dc52.pkl", content=None)

    def no_network(*args, **kwargs):
        raise OSError("no route to host")

    monkeypatch.setattr(request, "urlretrieve", no_network)
    with pytest.raises(UserError, match="zoo://a/b/C could not be downloaded .*no route to host") as error:
        load_checkpoint_file("zoo://a/b/C")
    for told in (model.address, str(model.cached), "where MODEL.WEIGHTS finds it"):
        assert told in str(error.value)


@pytest.mark.parametrize("name", ["coco/panoptic/r50", "coco/panoptc/R50", "zoo://coco/panoptic/R-50"])
def test_unknown_names_list_near_ones(name):
    with pytest.raises(UserError, match=r"Near ones: coco/panoptic/R50, .*tools/zoo.py list.*Correct --weights"):
        find_model(name, "--weights")


def test_names_like_nothing_are_told_how_names_are_made():
    with pytest.raises(UserError, match=r"has no '\?'. Names are dataset/task/backbone"):
        load_checkpoint_file("zoo://?")
