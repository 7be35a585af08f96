"""What a bug report needs: versions, devices, op backends. `python -m mask2former.utils.env` prints it."""

from __future__ import annotations

import importlib.metadata
import os
import platform
import shutil
import sys
from pathlib import Path

import torch

import mask2former

# what we stand on; cityscapesscripts and av are optional, natten only ever reported
_PACKAGES = (
    *("torch", "torchvision", "timm", "fvcore", "iopath", "yacs", "scipy", "numpy", "pillow"),
    *("pycocotools", "faster-coco-eval", "cityscapesscripts", "tensorboard", "PyYAML", "tqdm", "av", "natten"),
)
_VARIABLES = ("OMP_NUM_THREADS", "CUDA_VISIBLE_DEVICES", "CUDA_HOME", "NCCL_DEBUG", "FVCORE_CACHE", "MASK2FORMER_OPS")


def collect_env() -> str:
    """One "name: value" line per fact about this machine and installation."""
    facts = {
        "platform": platform.platform(),
        "python": f"{platform.python_version()} ({sys.executable})",
        "mask2former": f"{mask2former.__version__} ({Path(mask2former.__file__).parent})",
        **{name: _version(name) for name in _PACKAGES},
        "CPU cores": str(_cpu_count()),
        "torch threads": str(torch.get_num_threads()),
        **_cuda_facts(),
        **_backend_facts(),
        **{f"${name}": os.environ[name] for name in _VARIABLES if name in os.environ},
    }
    width = max(map(len, facts))
    return "\n".join(f"{name:<{width}} : {value}" for name, value in facts.items())


def _version(package: str) -> str:
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return "not installed"


def _cpu_count() -> int | None:
    """Cores this process may use, which in a container can be fewer than the machine has."""
    if hasattr(os, "sched_getaffinity"):  # not on macOS
        return len(os.sched_getaffinity(0))
    return os.cpu_count()


def _cuda_facts() -> dict[str, str]:
    if not torch.cuda.is_available():
        return {"CUDA": f"no device (torch built with CUDA {torch.version.cuda or 'none'})"}
    facts = {"CUDA": f"torch built with {torch.version.cuda}, cuDNN {torch.backends.cudnn.version()}"}
    for index in range(torch.cuda.device_count()):
        props = torch.cuda.get_device_properties(index)
        facts[f"GPU {index}"] = (
            f"{props.name}, {props.total_memory / 2**30:.1f} GiB, compute capability {props.major}.{props.minor}"
        )
    return facts


def _backend_facts() -> dict[str, str]:
    return {
        "C++ compiler": shutil.which("g++") or "none",
        "CUDA compiler": shutil.which("nvcc") or "none on PATH",
        "CPU capability": torch.backends.cpu.get_cpu_capability(),
        "oneDNN": "yes" if torch.backends.mkldnn.is_available() else "no",
    }


if __name__ == "__main__":
    print(collect_env())
