"""nvcc compiles the CUDA sources, with or without a GPU, for every architecture that is shipped."""

import re
import subprocess

import pytest

from mask2former.ops import build

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(build.find_compiler("cuda") is None, reason="no nvcc"),
]


def test_the_sources_compile_into_one_library_without_a_word(tmp_path):
    recipe = build.cuda_recipe(build.CUDA_AHEAD, ptx=True)
    command = [build.find_compiler("cuda"), *recipe.flags, "-Wno-deprecated-gpu-targets", *map(str, recipe.sources)]
    done = subprocess.run([*command, "-o", tmp_path / "cuda.so"], capture_output=True, text=True)
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
    symbols = subprocess.run(["nm", "-D", tmp_path / "cuda.so"], capture_output=True, text=True, check=True).stdout
    exported = set(re.findall(r" T (m2f_\w+)", symbols))
    ops, passes, dtypes = ("ms_deform_attn", "neighborhood_attention_2d"), ("forward", "backward"), "f32 f64 f16 bf16"
    names = {f"m2f_{op}_{step}_{dtype}" for op in ops for step in passes for dtype in dtypes.split()}
    assert exported == {"m2f_error", *names}


@pytest.mark.parametrize("capability", ["80", "90"])
def test_memory_is_read_by_vectors_and_numbers_stay_in_registers(tmp_path, capability):
    flags = ["-std=c++17", "-O3", f"-arch=sm_{capability}", "-Xptxas", "-v", "--keep", "--keep-dir", tmp_path, "-cubin"]
    for source in ("ms_deform_attn.cu", "neighborhood_attn.cu"):
        command = [build.find_compiler("cuda"), *flags, build.CSRC / "cuda" / source, "-o", tmp_path / "out.cubin"]
        done = subprocess.run(command, capture_output=True, text=True, check=True)
        stacks = [int(size) for size in re.findall(r"(\d+) bytes stack frame", done.stderr)]
        assert stacks and max(stacks) <= 128  # a few numbers may be put aside, but no array of channels
    ptx = (tmp_path / "ms_deform_attn.ptx").read_text()
    assert re.search(r"ld\.global\S*\.v4\.", ptx) and re.search(r"ld\.global\S*\.v2\.(f64|b64|u64)", ptx)
    # Hopper adds four numbers at once
    assert bool(re.search(r"(red|atom)\.global\S*\.v4\.f32", ptx)) == (capability == "90")
