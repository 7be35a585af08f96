"""The compiled ops: found ready, or compiled at first use.

A library has a plain C interface and no torch headers. So it compiles in seconds, fits any version of torch, and one
command of the compiler is the whole build: there is nothing for ninja to do. Its threads are those of the OpenMP
runtime that torch has loaded: it is linked with none, and the loader takes the functions from torch's.

Where a library is looked for, in this order:
1. `mask2former/ops/lib`, filled ahead of time by `python setup.py build_ext --inplace`;
2. `$XDG_CACHE_HOME/mask2former/ops` (default `~/.cache/mask2former/ops`), where what was compiled is kept.
Names carry a hash of sources and flags, so neither place is ever out of date. Instructions are those torch found this
CPU to have, in both places: a library never meets a CPU that it does not fit.
"""

from __future__ import annotations

import contextlib
import ctypes
import functools
import hashlib
import logging
import os
import platform
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import torch

from mask2former.utils.errors import UserError

logger = logging.getLogger(__name__)

CSRC = Path(__file__).parent / "csrc"
AHEAD = Path(__file__).parent / "lib"

# Instructions by what torch calls this CPU. torch looks for exactly these, and ATEN_CPU_CAPABILITY lowers both.
CPU_TARGETS = {
    "AVX512": ("-mavx512f", "-mavx512dq", "-mavx512bw", "-mavx512vl", "-mavx2", "-mfma"),
    "AVX2": ("-mavx2", "-mfma"),
    "DEFAULT": (),
}
# NaN and infinity keep their meaning; only errno and floating-point traps are given up, which nobody reads here
_CPU_FLAGS = ("-std=c++17", "-O3", "-fPIC", "-fopenmp", "-fno-math-errno", "-fno-trapping-math", "-Wall", "-Wextra")
_CUDA_FLAGS = ("-std=c++17", "-O3", "--shared", "-Xcompiler", "-fPIC")
# of a library built ahead of time: machine code up to Hopper, and PTX that newer devices translate
CUDA_AHEAD = ((8, 0), (8, 6), (8, 9), (9, 0))


class BuildError(Exception):
    """A library could not be had; ``failed``: something is wrong, rather than no compiler on this machine."""

    def __init__(self, message: str, failed: bool):
        super().__init__(message)
        self.failed = failed


@dataclass(frozen=True)
class Recipe:
    """What to compile, and how: target is a key of CPU_TARGETS or the devices' capabilities."""

    kind: str  # "cpu" or "cuda"
    target: str
    flags: tuple[str, ...]
    folder: Path = CSRC

    @property
    def sources(self) -> list[Path]:
        return sorted(self.folder.glob("*.cpp") if self.kind == "cpu" else (self.folder / "cuda").glob("*.cu"))

    def file_name(self, compiler_version: str = "") -> str:
        """`<kind>-<target>-<hash>.so`."""
        digest = hashlib.sha256(repr((self.flags, compiler_version)).encode())
        headers = sorted([*self.folder.glob("*.h"), *(self.sources[0].parent.glob("*.cuh") if self.sources else ())])
        for path in headers + self.sources:
            digest.update(path.name.encode() + b"\0" + path.read_bytes() + b"\0")
        return f"{self.kind}-{self.target.lower()}-{digest.hexdigest()[:16]}.so"


def cpu_recipe(target: str | None = None, folder: Path = CSRC) -> Recipe:
    """For this machine's CPU, or for one of CPU_TARGETS."""
    target = target or torch.backends.cpu.get_cpu_capability()
    if platform.machine() not in ("x86_64", "AMD64") or target not in CPU_TARGETS:
        target = "DEFAULT"
    return Recipe("cpu", target, _CPU_FLAGS + CPU_TARGETS[target], folder)


def cuda_recipe(capabilities: tuple[tuple[int, int], ...], ptx: bool = False) -> Recipe:
    """For devices of these compute capabilities; ptx: and for newer ones than the last."""
    numbers = [f"{major}{minor}" for major, minor in capabilities]
    codes = [f"-gencode=arch=compute_{n},code=sm_{n}" for n in numbers]
    if ptx:
        codes.append(f"-gencode=arch=compute_{numbers[-1]},code=compute_{numbers[-1]}")
    return Recipe("cuda", "sm" + "_".join(numbers), (*_CUDA_FLAGS, *codes))


@functools.cache
def _open(kind: str) -> ctypes.CDLL | BuildError:
    """The library or why there is none, said once."""
    try:
        return _load(_ready(kind) or _compiled(_recipe(kind)))
    except BuildError as error:
        log = logger.warning if error.failed else logger.info
        log("no compiled ops for %s: %s", kind, error)
        return error


def library(kind: str, *, required: bool = False) -> ctypes.CDLL | None:
    """The compiled ops for "cpu" or "cuda" tensors; None where there is none, after one line of log.

    Raises UserError instead of returning None when ``required``.
    """
    found = _open(kind)
    if not isinstance(found, BuildError):
        return found
    if required:
        raise UserError(f"no compiled ops for {kind}: {found}")
    return None


def _recipe(kind: str) -> Recipe:
    if kind == "cpu":
        return cpu_recipe()
    if not torch.cuda.is_available():
        raise BuildError("torch sees no CUDA device", failed=False)
    devices = range(torch.cuda.device_count())
    return cuda_recipe(tuple(sorted({torch.cuda.get_device_capability(i) for i in devices})))


def _ready(kind: str) -> Path | None:
    """The library built ahead of time, if it fits sources and machine."""
    if kind == "cpu":
        path = AHEAD / cpu_recipe().file_name()
    else:
        path = AHEAD / cuda_recipe(CUDA_AHEAD, ptx=True).file_name()
        devices = range(torch.cuda.device_count())
        if not devices or min(map(torch.cuda.get_device_capability, devices)) < CUDA_AHEAD[0]:
            return None
    return path if path.is_file() else None


def _load(path: Path) -> ctypes.CDLL:
    try:
        found = ctypes.CDLL(str(path))
        found.m2f_error.restype = ctypes.c_char_p
    except (OSError, AttributeError) as error:  # damaged, or another library
        raise BuildError(f"{path} does not load: {error}; delete it, and it is compiled again", failed=True) from None
    logger.debug("compiled ops: %s", path)
    return found


def cache_dir() -> Path:
    """Where compiled libraries are kept. Raises BuildError for a user without a home."""
    try:
        return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "mask2former" / "ops"
    except RuntimeError as error:
        raise BuildError(f"{error}; set XDG_CACHE_HOME to a folder that can be written", failed=True) from None


def find_compiler(kind: str) -> str | None:
    """Path of the compiler: $CXX or g++; $CUDA_HOME's, PATH's or /usr/local/cuda's nvcc."""
    if kind == "cpu":
        # no clang: its OpenMP calls are those of LLVM's runtime, and torch for Linux brings GNU's
        return shutil.which(os.environ.get("CXX") or "g++") or shutil.which("c++")
    homes = [os.environ.get("CUDA_HOME"), "/usr/local/cuda"]
    found = [str(Path(home) / "bin" / "nvcc") for home in homes if home]
    return next(filter(None, map(shutil.which, (found[0], "nvcc", found[-1]))), None)


def _compiled(recipe: Recipe) -> Path:
    """The library from the cache, where it is put first if need be: once, however many processes ask."""
    if sys.platform != "linux":
        raise BuildError(f"they are compiled on Linux only, this is {sys.platform}", failed=False)
    compiler = find_compiler(recipe.kind)
    if compiler is None:
        name = {"cpu": "C++ compiler (g++)", "cuda": "CUDA compiler (nvcc)"}[recipe.kind]
        raise BuildError(f"no {name} on this machine", failed=False)
    path = cache_dir() / recipe.file_name(_run([compiler, "--version"]))
    if path.is_file():
        return path
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with _locked(path.with_suffix(".lock")):
            if not path.is_file():
                logger.info("compiling the ops for %s into %s", recipe.kind, path)
                compile_library(recipe, compiler, path)
    except OSError as error:
        raise BuildError(f"{error}; set XDG_CACHE_HOME to a folder that can be written", failed=True) from None
    return path


def compile_library(recipe: Recipe, compiler: str, path: Path) -> None:
    """Compile to a file beside ``path`` and rename it: nobody sees half a library. Raises BuildError."""
    with tempfile.TemporaryDirectory(dir=path.parent) as folder:
        built = Path(folder) / path.name
        if recipe.kind == "cuda":
            _run([compiler, *recipe.flags, *map(str, recipe.sources), "-o", str(built)])
        else:
            objects = [Path(folder) / f"{source.stem}.o" for source in recipe.sources]
            pairs = zip(recipe.sources, objects)
            commands = [[compiler, *recipe.flags, "-c", str(source), "-o", str(made)] for source, made in pairs]
            with ThreadPoolExecutor(os.cpu_count()) as pool:
                list(pool.map(_run, commands))
            # without -fopenmp, so that no second runtime is linked
            _run([compiler, "-shared", *map(str, objects), "-o", str(built)])
        built.replace(path)


def _run(command: list[str]) -> str:
    """Output of the command; a BuildError with command and first lines where it fails."""
    try:
        done = subprocess.run(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, errors="replace")
    except OSError as error:
        raise BuildError(f"{command[0]} cannot be run: {error}", failed=True) from None
    if done.returncode:
        head = "\n".join(done.stdout.splitlines()[:15])
        raise BuildError(f"exit status {done.returncode} of {' '.join(command)}\n{head}", failed=True)
    return done.stdout


@contextlib.contextmanager
def _locked(path: Path) -> Iterator[None]:
    """Only one process is inside; the system lets go when it dies."""
    import fcntl  # not on Windows

    with open(path, "w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield


def build_ahead(folder: Path = AHEAD) -> list[Path]:
    """Compile every library that a compiler is here for, for all targets, into ``folder``; returns the files.

    What else was built there before is removed at the end. Raises BuildError when one fails or there is no compiler.
    """
    folder.mkdir(parents=True, exist_ok=True)
    x86 = platform.machine() == "x86_64"
    recipes = [cpu_recipe(target) for target in (CPU_TARGETS if x86 else ("DEFAULT",))]
    recipes.append(cuda_recipe(CUDA_AHEAD, ptx=True))
    built = []
    for recipe in recipes:
        if (compiler := find_compiler(recipe.kind)) and recipe.sources:
            compile_library(recipe, compiler, folder / recipe.file_name())
            built.append(folder / recipe.file_name())
    if not built:
        raise BuildError("no C++ compiler (g++) and no CUDA compiler (nvcc) on this machine", failed=False)
    for old in set(folder.glob("*.so")) - set(built):
        old.unlink()
    return built
