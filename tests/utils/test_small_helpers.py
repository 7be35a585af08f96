"""Registry, suggestions, paths, logging, seeds, environment."""

import logging
import random
import subprocess
import sys
from pathlib import Path
from urllib import request

import numpy as np
import pytest
import torch

from mask2former.utils.env import collect_env
from mask2former.utils.errors import UserError
from mask2former.utils.io import DETECTRON2_HOST, local_path, path_manager
from mask2former.utils.logger import setup_logger
from mask2former.utils.registry import Registry
from mask2former.utils.seed import seed_everything
from mask2former.utils.text import suggest


def test_suggest_names_the_nearest_or_nothing():
    assert suggest("adm", ["ADAMW", "SGD"]) == " Did you mean 'ADAMW'?"
    assert suggest("zzz", ["ADAMW", "SGD"]) == ""
    assert suggest("x", []) == ""
    assert suggest("zzz", ["SGD"], cutoff=0.0) == " Did you mean 'SGD'?"


def test_registry_registers_under_both_kinds_of_names():
    registry = Registry("THINGS")

    @registry.register()
    def first():
        return 1

    @registry.register(name="second.name")
    class Second:
        pass

    registry.register(len)
    registry.register(max, name="largest")
    assert registry.get("first") is first and first() == 1
    assert registry.get("second.name") is Second and registry.get("len") is len and registry.get("largest") is max
    assert "first" in registry and "Second" not in registry
    assert dict(registry) == {"first": first, "second.name": Second, "len": len, "largest": max}


def test_registry_errors_name_what_there_is():
    registry = Registry("THINGS")
    with pytest.raises(UserError, match="none; is the module .* IMPORTS"):
        registry.get("a")
    registry.register(len, name="MaskFormer")
    with pytest.raises(UserError, match="THINGS knows no 'MaskFromer'. Did you mean 'MaskFormer'"):
        registry.get("MaskFromer")
    with pytest.raises(UserError, match="'MaskFormer' is registered in THINGS already"):
        registry.register(max, name="MaskFormer")


def test_local_path_of_local_files(tmp_path, monkeypatch):
    file = tmp_path / "model.pth"
    file.write_bytes(b"x")
    monkeypatch.setenv("HOME", str(tmp_path))
    assert local_path(str(file)) == local_path("~/model.pth") == str(file)
    with pytest.raises(UserError, match=r"modle.pth. Did you mean 'model.pth'\? Correct MODEL.WEIGHTS"):
        local_path(str(tmp_path / "modle.pth"))
    with pytest.raises(UserError, match="folder .*none does not exist. Correct --input"):
        local_path(str(tmp_path / "none" / "model.pth"), key="--input")
    with pytest.raises(UserError, match="is a folder"):
        local_path(str(tmp_path))


def test_addresses_are_downloaded_or_the_way_out_is_told(tmp_path, monkeypatch, capfd):
    asked = []

    def download(address, file, reporthook):
        asked.append(address)
        if "down" in address:
            raise OSError("no route to host")
        reporthook(0, 8, 4)
        Path(file).write_bytes(b"data")
        reporthook(1, 8, 4)

    monkeypatch.setenv("FVCORE_CACHE", str(tmp_path))
    monkeypatch.setattr(request, "urlretrieve", download)
    with pytest.raises(UserError, match=r"https://down.org/x.pkl .*no route to host.* set MODEL.WEIGHTS"):
        local_path("https://down.org/x.pkl")
    assert capfd.readouterr() == ("", "")  # neither a bar nor a log: the message has all
    for _ in range(2):
        assert local_path("detectron2://a/b.pkl") == str(tmp_path / "detectron2" / "a" / "b.pkl")
    assert asked[1:] == [DETECTRON2_HOST + "a/b.pkl"] and "b.pkl" in capfd.readouterr().err
    assert Path(path_manager.get_local_path("https://x.org/y")).read_bytes() == b"data"
    assert not list(tmp_path.rglob("*.tmp"))


def test_the_logger_writes_one_file_per_rank(tmp_path, capsys):
    try:
        for rank in (0, 1, 0):  # a later call replaces the handlers of an earlier one
            setup_logger(tmp_path / "out", rank)
            logging.getLogger("mask2former.some.module").info("hello from %d", rank)
        console = capsys.readouterr().out
        assert console.count("hello from 0") == 2 and "hello from 1" not in console
        assert (tmp_path / "out" / "log.txt").read_text().count("hello from 0") == 2
        assert (tmp_path / "out" / "log.txt.rank1").read_text().count("hello") == 1
    finally:  # leave no handlers behind for other tests
        logger = logging.getLogger("mask2former")
        for handler in list(logger.handlers):
            logger.removeHandler(handler)
            handler.close()
        logger.propagate = True


def test_seeding_repeats_every_source():
    def draw():
        return random.random(), np.random.rand(), torch.rand(1).item()

    seed_everything(2**40)
    first = draw()
    seed_everything(2**40)
    assert draw() == first
    seed_everything(1)
    assert draw() != first


def test_the_environment_report_names_what_a_bug_report_needs():
    report = collect_env()
    for name in ("python", "mask2former", "torch", "torchvision", "timm", "numpy", "CUDA", "C++ compiler"):
        assert any(line.startswith(name) for line in report.splitlines()), name
    assert torch.__version__.split("+")[0] in report
    assert issubclass(UserError, ValueError)


def test_the_environment_report_runs_as_a_program():
    out = subprocess.run([sys.executable, "-m", "mask2former.utils.env"], capture_output=True, text=True, check=True)
    assert "torchvision" in out.stdout and out.stderr == ""
