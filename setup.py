"""Metadata is in pyproject.toml. Here is what compiles the ops ahead of time; installing compiles nothing.

python setup.py build_ext --inplace    compile the ops into mask2former/ops/lib, which wheels made then carry along
"""

from setuptools import setup
from setuptools.command.bdist_wheel import bdist_wheel
from setuptools.command.build_ext import build_ext
from setuptools.errors import CompileError


class BuildOps(build_ext):
    """Compile the ops for all kinds of CPU, and with nvcc for GPUs; without --inplace into the build folder."""

    def run(self) -> None:
        from pathlib import Path

        from mask2former.ops.build import AHEAD, BuildError, build_ahead

        folder = AHEAD if self.inplace else Path(self.build_lib).resolve() / "mask2former" / "ops" / "lib"
        try:
            built = build_ahead(folder)
        except BuildError as error:
            raise CompileError(f"the ops are not compiled: {error}") from None
        print(*built, sep="\n")


class Wheel(bdist_wheel):
    """A wheel that carries compiled ops is one for this platform, whatever the version of Python."""

    def get_tag(self) -> tuple[str, str, str]:
        from pathlib import Path

        python, abi, platform = super().get_tag()
        if any(Path(self.bdist_dir).glob("**/mask2former/ops/lib/*.so")):
            from sysconfig import get_platform

            platform = get_platform().replace("-", "_").replace(".", "_")
        return python, abi, platform


setup(cmdclass={"build_ext": BuildOps, "bdist_wheel": Wheel})
