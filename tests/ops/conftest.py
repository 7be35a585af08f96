import os
import subprocess

import pytest

from mask2former.ops import backends, build


@pytest.fixture
def both(monkeypatch):
    """Calls a function twice: what it gives by torch, and by C++."""

    def call(function):
        found = []
        for name in ("torch", "cpp"):
            monkeypatch.setenv(backends.VARIABLE, name)
            found.append(function())
        return found

    return call


@pytest.fixture
def sanitized(tmp_path):
    """Runs a C++ program for a set of instructions under AddressSanitizer and UndefinedBehaviorSanitizer.

    It gives what the program writes, and fails where they find anything.
    """

    def run(program, target):
        compiler = build.find_compiler("cpu")
        if compiler is None:
            pytest.skip("no compiler")
        here = list(build.CPU_TARGETS).index(build.cpu_recipe().target)
        if list(build.CPU_TARGETS).index(target) < here:
            pytest.skip("this CPU lacks the instructions")
        (tmp_path / "driver.cpp").write_text(program)
        flags = ["-std=c++17", "-O1", "-g", "-fopenmp", "-fsanitize=address,undefined", "-fno-sanitize-recover=all"]
        command = [compiler, *flags, *build.CPU_TARGETS[target], f"-I{build.CSRC}", "driver.cpp", "-o", "driver"]
        built = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True)
        if "cannot find" in built.stderr:
            pytest.skip("the compiler has no sanitizers")
        assert built.returncode == 0, built.stderr
        environment = {**os.environ, "ASAN_OPTIONS": "detect_leaks=0"}  # leaks need ptrace, which may be forbidden
        done = subprocess.run([str(tmp_path / "driver")], capture_output=True, text=True, env=environment)
        assert done.returncode == 0, done.stderr[:3000]
        return done.stdout

    return run
