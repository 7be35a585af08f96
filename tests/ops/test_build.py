"""Compiling and finding the libraries. Tests that compile use a folder with one tiny source, and need g++."""

import ctypes
import logging
import multiprocessing
import re
import sys
from pathlib import Path

import pytest

from mask2former.ops import backends, build
from mask2former.utils.errors import UserError

needs_compiler = pytest.mark.skipif(
    sys.platform != "linux" or build.find_compiler("cpu") is None, reason="no C++ compiler on this machine"
)

SOURCE = 'extern "C" const char* m2f_error(int) { return "none"; }\n'


@pytest.fixture
def fresh(monkeypatch, tmp_path):
    """A machine on which nothing was built: empty folders, one tiny source, nothing remembered."""
    sources = tmp_path / "csrc"
    sources.mkdir()
    (sources / "tiny.cpp").write_text(SOURCE)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.delenv(backends.VARIABLE, raising=False)
    monkeypatch.setattr(build, "AHEAD", tmp_path / "lib")
    monkeypatch.setattr(build, "_recipe", lambda kind: build.cpu_recipe(folder=sources))
    forget()
    yield sources
    forget()


def forget():
    build._open.cache_clear()
    backends._choose.cache_clear()


def built(tmp_path):
    return sorted(p.name for p in tmp_path.glob("cache/mask2former/ops/*.so"))


def lines(caplog, level):
    return [r.getMessage() for r in caplog.records if r.levelno == level]


@needs_compiler
def test_what_is_compiled_is_kept_until_a_source_changes(fresh, tmp_path, monkeypatch):
    assert build.library("cpu").m2f_error(0) == b"none"
    first = built(tmp_path)
    assert len(first) == 1
    build._open.cache_clear()
    with monkeypatch.context() as patch:
        patch.setattr(build, "compile_library", None)  # would fail if it were called
        assert build.library("cpu") is not None
    (fresh / "tiny.cpp").write_text(SOURCE.replace("none", "more"))
    build._open.cache_clear()
    assert build.library("cpu").m2f_error(0) == b"more"
    assert len(built(tmp_path)) == 2


@needs_compiler
def test_processes_that_start_together_build_once(fresh, tmp_path, monkeypatch):
    compiler, count = tmp_path / "c++", tmp_path / "count"  # counts what it links, slowly
    compiler.write_text(f'#!/bin/sh\ncase "$*" in -shared*) echo >> {count}; sleep 0.3;; esac\nexec g++ "$@"\n')
    compiler.chmod(0o755)
    monkeypatch.setenv("CXX", str(compiler))
    fork = multiprocessing.get_context("fork")  # starts in no time; nothing here uses torch's threads
    results = fork.SimpleQueue()
    ranks = [fork.Process(target=lambda: results.put(build.library("cpu").m2f_error(0))) for _ in range(3)]
    for rank in ranks:
        rank.start()
    for rank in ranks:
        rank.join()
    assert [results.get() for _ in ranks] == [b"none"] * 3
    assert len(count.read_text().splitlines()) == 1
    left = {path.suffix for path in (tmp_path / "cache" / "mask2former" / "ops").iterdir()}
    assert left == {".so", ".lock"}


def test_without_a_compiler_one_line_is_said_and_torch_runs(fresh, monkeypatch, caplog):
    monkeypatch.setattr(build, "find_compiler", lambda kind: None)
    with caplog.at_level(logging.INFO):
        for _ in range(2):
            assert backends.backend("ms_deform_attn", "cpu") == "torch"
            assert backends.backend("neighborhood_attention_2d", "cpu") == "torch"
    assert len([line for line in lines(caplog, logging.INFO) if "compile" in line]) == 1
    assert lines(caplog, logging.WARNING) == []
    with pytest.raises(UserError, match="no compiled ops for cpu"):
        build.library("cpu", required=True)


@needs_compiler
def test_a_failing_build_warns_with_command_and_output_once_or_raises_where_forced(fresh, monkeypatch, caplog):
    (fresh / "tiny.cpp").write_text("this is no C++\n")
    with caplog.at_level(logging.INFO):
        for _ in range(2):
            assert backends.backend("ms_deform_attn", "cpu") == "torch"
    (warning,) = lines(caplog, logging.WARNING)
    assert re.search(r"exit status 1 of .*g\+\+.*-O3.*tiny\.cpp", warning)
    assert "error:" in warning
    monkeypatch.setenv(backends.VARIABLE, "cpp")
    with pytest.raises(UserError, match=r"exit status 1 of [\s\S]*error:"):
        backends.backend("ms_deform_attn", "cpu")


@needs_compiler
def test_a_folder_that_cannot_be_written_is_named(fresh, monkeypatch, tmp_path):
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "file"))
    with pytest.raises(UserError, match=r"file.*set XDG_CACHE_HOME"):
        build.library("cpu", required=True)


def test_a_user_without_a_home_gets_torch(fresh, monkeypatch, tmp_path, caplog):
    def homeless():
        raise RuntimeError("Could not determine home directory.")

    monkeypatch.delenv("XDG_CACHE_HOME")
    monkeypatch.setattr(build.Path, "home", homeless)
    monkeypatch.setattr(build, "find_compiler", lambda kind: "/bin/true")
    assert backends.backend("ms_deform_attn", "cpu") == "torch"
    (warning,) = lines(caplog, logging.WARNING)
    assert re.search("home directory.*set XDG_CACHE_HOME", warning)


def test_a_compiler_that_cannot_be_executed_is_named(fresh, monkeypatch, tmp_path, caplog):
    compiler = tmp_path / "c++"
    compiler.write_text("no program\n")
    compiler.chmod(0o755)
    monkeypatch.setenv("CXX", str(compiler))
    assert backends.backend("ms_deform_attn", "cpu") == "torch"
    (warning,) = lines(caplog, logging.WARNING)
    assert f"{compiler} cannot be run: " in warning


@needs_compiler
@pytest.mark.parametrize("damage", ["truncated", "another"])
def test_a_library_that_does_not_load_is_named(fresh, tmp_path, caplog, damage):
    if damage == "another":
        (fresh / "tiny.cpp").write_text("int nothing;\n")
    else:
        path = build._compiled(build._recipe("cpu"))
        path.write_bytes(path.read_bytes()[:40])
    assert backends.backend("ms_deform_attn", "cpu") == "torch"
    (warning,) = lines(caplog, logging.WARNING)
    assert re.search(r"ops/cpu-\S*\.so does not load: .*delete it", warning)


@needs_compiler
def test_building_ahead_removes_old_libraries_at_the_end(fresh, tmp_path, monkeypatch):
    folder, old = tmp_path / "lib", tmp_path / "lib" / "cpu-old.so"
    folder.mkdir()
    old.touch()
    monkeypatch.setattr(build, "cpu_recipe", lambda target: build.Recipe("cpu", target, ("-fPIC",), fresh))
    gxx = build.find_compiler("cpu")
    with monkeypatch.context() as patch:
        patch.setattr(build, "find_compiler", lambda kind: None)
        with pytest.raises(build.BuildError, match="no C\\+\\+ compiler"):
            build.build_ahead(folder)
    assert old.exists()
    monkeypatch.setattr(build, "find_compiler", lambda kind: gxx if kind == "cpu" else None)
    assert sorted(build.build_ahead(folder)) == sorted(folder.iterdir())


@needs_compiler
def test_a_library_built_ahead_of_time_is_taken_if_it_fits(fresh, monkeypatch, tmp_path):
    recipe = build.cpu_recipe()
    (tmp_path / "lib").mkdir()
    with monkeypatch.context() as patch:
        patch.setattr(build.Recipe, "sources", [fresh / "tiny.cpp"])
        build.compile_library(recipe, build.find_compiler("cpu"), tmp_path / "lib" / recipe.file_name())
        assert build._ready("cpu") == tmp_path / "lib" / recipe.file_name()
        monkeypatch.setattr(build, "find_compiler", lambda kind: None)
        assert build.library("cpu").m2f_error(0) == b"none"
        assert built(tmp_path) == []
    assert build._ready("cpu") is None  # the name of other sources


def test_instructions_are_those_of_this_cpu(monkeypatch):
    monkeypatch.setattr(build.platform, "machine", lambda: "x86_64")
    names = set()
    for target, flags in build.CPU_TARGETS.items():
        monkeypatch.setattr(build.torch.backends.cpu, "get_cpu_capability", lambda target=target: target)
        assert build.cpu_recipe().flags[-len(flags) or len(build.cpu_recipe().flags) :] == flags
        names.add(build.cpu_recipe().file_name())
    assert len(names) == len(build.CPU_TARGETS)
    monkeypatch.setattr(build.torch.backends.cpu, "get_cpu_capability", lambda: "something new")
    assert build.cpu_recipe().target == "DEFAULT"
    monkeypatch.setattr(build.platform, "machine", lambda: "aarch64")
    assert build.cpu_recipe("AVX2").target == "DEFAULT"


@needs_compiler
def test_threads_are_those_of_torch():
    assert isinstance(build.library("cpu"), ctypes.CDLL)
    maps = Path("/proc/self/maps").read_text()
    assert len(set(re.findall(r"\S*/lib(?:gomp|iomp5|omp)[-.\w]*", maps))) == 1


@pytest.mark.slow
@needs_compiler
def test_all_targets_compile_ahead_of_time(tmp_path, monkeypatch):
    find = build.find_compiler
    # GPUs' targets take minutes; test_cuda_build.py compiles them
    monkeypatch.setattr(build, "find_compiler", lambda kind: find(kind) if kind == "cpu" else None)
    assert len(build.build_ahead(tmp_path)) == len(list(tmp_path.glob("cpu-*.so"))) > 0
