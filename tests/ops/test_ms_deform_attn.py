import itertools
import os
import subprocess

import pytest
import torch

from mask2former.ops import backends, build, ms_deform_attn
from mask2former.ops.reference import ms_deform_attn_reference

# B batch, S pixels of all levels, H heads, D channels per head, Q queries, L levels, P points


@pytest.fixture(params=["torch", "cpp"])
def backend(request, monkeypatch):
    """Every implementation that CPU tensors have."""
    if request.param == "cpp" and build.library("cpu") is None:
        pytest.skip("no compiled ops on this machine")
    monkeypatch.setenv(backends.VARIABLE, request.param)
    return request.param


@pytest.fixture
def cpp(monkeypatch):
    if build.library("cpu") is None:
        pytest.skip("no compiled ops on this machine")
    monkeypatch.setenv(backends.VARIABLE, "cpp")


def make(shapes=((3, 5), (2, 2)), B=2, H=2, D=3, Q=4, P=2, dtype=torch.float64, seed=0):
    g = torch.Generator().manual_seed(seed)
    S, L = sum(h * w for h, w in shapes), len(shapes)
    value = torch.randn(B, S, H, D, generator=g, dtype=dtype)
    locations = torch.rand(B, Q, H, L, P, 2, generator=g, dtype=dtype) * 1.4 - 0.2  # some outside
    weights = torch.rand(B, Q, H, L, P, generator=g, dtype=dtype)
    return value, torch.tensor(shapes), locations, weights


def bilinear(image, x, y):
    """Value at pixel coordinates, zero outside: the definition, one corner at a time."""
    h, w = image.shape[:2]
    total = torch.zeros(image.shape[2], dtype=image.dtype)
    x0, y0 = int(x // 1), int(y // 1)
    for dy, dx in itertools.product((0, 1), (0, 1)):
        if 0 <= y0 + dy < h and 0 <= x0 + dx < w:
            total += image[y0 + dy, x0 + dx] * (1 - abs(x - x0 - dx)) * (1 - abs(y - y0 - dy))
    return total


def test_equals_the_definition(backend):
    value, shapes, locations, weights = make()
    out = ms_deform_attn(value, shapes, locations, weights)
    B, Q, H, _, P, _ = locations.shape
    for b, q, head in itertools.product(range(B), range(Q), range(H)):
        start, wanted = 0, 0
        for level, (h, w) in enumerate(shapes.tolist()):
            image = value[b, start : start + h * w, head].reshape(h, w, -1)
            start += h * w
            for p in range(P):
                x, y = (locations[b, q, head, level, p] * torch.tensor([w, h]) - 0.5).tolist()
                wanted = wanted + weights[b, q, head, level, p] * bilinear(image, x, y)
        torch.testing.assert_close(out[b, q].view(H, -1)[head], wanted)


def test_gradients(backend):
    value, shapes, locations, weights = make(Q=2, D=2)
    for t in (value, locations, weights):
        t.requires_grad_()
    assert torch.autograd.gradcheck(lambda v, s, w: ms_deform_attn(v, shapes, s, w), (value, locations, weights))


def test_an_empty_level_adds_nothing(backend):
    value, shapes, locations, weights = make()
    padded = torch.cat([shapes, torch.tensor([[0, 4]])])
    more = torch.cat([locations, locations[:, :, :, :1]], 3), torch.cat([weights, weights[:, :, :, :1]], 3)
    torch.testing.assert_close(ms_deform_attn(value, padded, *more), ms_deform_attn(value, shapes, locations, weights))


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_precision_keeps_its_dtype_and_precise_locations(backend, dtype):
    value, shapes, locations, weights = make(shapes=((64, 64),), dtype=torch.float32)
    half = ms_deform_attn(value.to(dtype), shapes, locations, weights.to(dtype))
    assert half.dtype == dtype
    torch.testing.assert_close(half.float(), ms_deform_attn(value, shapes, locations, weights), atol=0.05, rtol=0.02)


def test_wrong_shapes_name_the_argument(backend):
    value, shapes, locations, weights = make()
    with pytest.raises(ValueError, match="value must be"):
        ms_deform_attn(value[0], shapes, locations, weights)
    with pytest.raises(ValueError, match="sampling_locations must be"):
        ms_deform_attn(value, shapes, locations[..., :1], weights)
    with pytest.raises(ValueError, match="attention_weights must be"):
        ms_deform_attn(value, shapes, locations, weights[..., :1])
    with pytest.raises(ValueError, match="cover 19 pixels, but value has S=18"):
        ms_deform_attn(value[:, :-1], shapes, locations, weights)
    with pytest.raises(ValueError, match="must not be negative"):
        ms_deform_attn(value, -shapes, locations, weights)
    with pytest.raises(ValueError, match="spatial_shapes must be"):
        ms_deform_attn(value, shapes[0], locations, weights)


def test_wrong_dtypes_and_devices_name_the_argument(backend):
    value, shapes, locations, weights = make()
    with pytest.raises(TypeError, match="spatial_shapes must be int64"):
        ms_deform_attn(value, shapes.double(), locations, weights)
    with pytest.raises(TypeError, match="value must be floating"):
        ms_deform_attn(value.long(), shapes, locations, weights)
    with pytest.raises(TypeError, match="attention_weights must be floating"):
        ms_deform_attn(value, shapes, locations, weights.bool())
    with pytest.raises(ValueError, match="sampling_locations must be on value's device cpu, got meta"):
        ms_deform_attn(value, shapes, locations.to("meta"), weights)


def results(op, value, shapes, locations, weights):
    """Output and gradients of value, locations and weights."""
    inputs = [x.detach().requires_grad_() for x in (value, locations, weights)]
    out = op(inputs[0], shapes, *inputs[1:])
    grad = torch.linspace(-1, 1, out.numel(), dtype=out.dtype).view_as(out)
    if not out.requires_grad:  # the reference, without a pixel
        return [out, *map(torch.zeros_like, inputs)]
    return [out.detach(), *torch.autograd.grad(out, inputs, grad, materialize_grads=True)]


def test_compiled_equals_reference_on_many_shapes(cpp):
    g = torch.Generator().manual_seed(1)
    for seed in range(60):
        B, H, D, Q, P = (int(torch.randint(0, most, (), generator=g)) for most in (4, 4, 40, 6, 4))
        D = 32 if seed % 3 == 0 else D
        sizes = torch.randint(0, 7, (int(torch.randint(0, 4, (), generator=g)), 2), generator=g)
        value, shapes, locations, weights = make(sizes.tolist(), B, H, D, Q, P, seed=seed)
        shapes = shapes.view(-1, 2).long()
        locations = (locations - 0.5) * (10.0 ** (seed % 4)) + 0.5  # from inside to far away
        for got, wanted in zip(
            results(ms_deform_attn, value, shapes, locations, weights),
            results(ms_deform_attn_reference, value, shapes, locations, weights),
        ):
            assert got.shape == wanted.shape
            torch.testing.assert_close(got, wanted, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("threads", [1, 2, 7])
def test_threads_and_single_precision_do_not_show(cpp, threads):
    exact = make(((9, 13), (5, 4), (1, 1)), B=2, H=3, D=32, Q=70)
    # a tenth of a pixel from where neighbours change, which single precision cannot move it across
    sizes = exact[1].flip(1)[:, None].double()
    pixels = exact[2] * sizes - 0.5
    exact = (exact[0], exact[1], (pixels.floor() + (pixels - pixels.floor()).clamp(0.1, 0.9) + 0.5) / sizes, exact[3])
    single = [x.float() if x.is_floating_point() else x for x in exact]
    before = torch.get_num_threads()
    torch.set_num_threads(threads)
    try:
        got = results(ms_deform_attn, *single)
    finally:
        torch.set_num_threads(before)
    for a, b in zip(got, results(ms_deform_attn_reference, *exact)):
        assert (a.double() - b).abs().max() < 1e-5 * b.abs().max()


def test_layout_does_not_matter(cpp):
    value, shapes, locations, weights = make()
    other = value.transpose(1, 2).contiguous().transpose(1, 2), shapes.t().contiguous().t()
    other += locations.transpose(1, 4).contiguous().transpose(1, 4), weights.expand(2, *weights.shape)[1]
    for got, wanted in zip(results(ms_deform_attn, *other), results(ms_deform_attn, value, shapes, locations, weights)):
        assert torch.equal(got, wanted)


@pytest.mark.parametrize("bad", [float("nan"), float("inf"), -float("inf"), 1e30, -1e30])
@pytest.mark.parametrize("where", ["value", "locations", "weights"])
@pytest.mark.parametrize("outside", [False, True])
def test_nan_and_infinity_show_where_the_reference_shows_them(cpp, bad, where, outside):
    inputs = dict(zip(("value", "shapes", "locations", "weights"), make(B=1, H=1, Q=6, P=1)))
    inputs["locations"][0, 2] = 4.0 if outside else 0.5
    inputs[where].view(-1)[inputs[where].numel() // 2 :: 7] = bad
    (out, *grads), (expected, *expected_grads) = (
        results(op, *inputs.values()) for op in (ms_deform_attn, ms_deform_attn_reference)
    )
    # an infinite weight times values of both signs may be NaN in one and infinite in the other
    assert torch.equal(out.isfinite(), expected.isfinite())
    torch.testing.assert_close(out[out.isfinite()], expected[out.isfinite()])
    for got, wanted in zip(grads, expected_grads):
        same = got.isfinite()
        assert (wanted.isfinite() | ~same).all()  # of a location, NaN reaches x and y; in the reference sometimes one
        torch.testing.assert_close(got[same], wanted[same])


def test_the_custom_op_keeps_torchs_contract(backend):
    value, shapes, locations, weights = make(H=1, Q=2, D=2)
    for requires_grad in (False, True):
        inputs = [
            x.requires_grad_(requires_grad) if x.is_floating_point() else x for x in (value, shapes, locations, weights)
        ]
        torch.library.opcheck(torch.ops.mask2former.ms_deform_attn.default, inputs)


def test_compile_and_export_keep_it_as_one_node(backend):
    inputs = [x.requires_grad_() if x.is_floating_point() else x for x in make()]
    compiled = torch.compile(ms_deform_attn, fullgraph=True, backend="aot_eager")
    for got, wanted in zip(results(compiled, *inputs), results(ms_deform_attn, *inputs)):
        torch.testing.assert_close(got, wanted)

    class Model(torch.nn.Module):
        def forward(self, *inputs):
            return ms_deform_attn(*inputs)

    program = torch.export.export(Model(), tuple(x.detach() for x in inputs), strict=False)
    called = [str(node.target) for node in program.graph.nodes if node.op == "call_function"]
    assert called == ["mask2former.ms_deform_attn.default"]


def test_an_exported_node_runs_where_nothing_is_compiled(monkeypatch):
    monkeypatch.setenv(backends.VARIABLE, "torch")
    inputs = make()
    for got, wanted in zip(results(torch.ops.mask2former.ms_deform_attn, *inputs), results(ms_deform_attn, *inputs)):
        torch.testing.assert_close(got, wanted)


def test_no_memory_but_results(cpp):
    value, shapes, locations, weights = make(((40, 40),), B=1, H=4, D=32, Q=500, P=4, dtype=torch.float32)
    inputs = [x.requires_grad_() for x in (value, locations, weights)]
    with torch.profiler.profile(activities=[torch.profiler.ProfilerActivity.CPU], profile_memory=True) as profile:
        out = ms_deform_attn(inputs[0], shapes, *inputs[1:])
        torch.autograd.grad(out, inputs, out.detach())
    allocated = sum(max(event.self_cpu_memory_usage, 0) for event in profile.events())
    wanted = sum(x.numel() * 4 for x in (out, *inputs))
    assert wanted <= allocated < wanted + 4096


def test_double_backward_is_refused(cpp):
    value, shapes, locations, weights = make()
    out = ms_deform_attn(value.requires_grad_(), shapes, locations.requires_grad_(), weights)
    (grad,) = torch.autograd.grad(out.sum(), value, create_graph=True)
    with pytest.raises(RuntimeError, match="no autograd formula"):
        grad.sum().backward()


@pytest.mark.slow
def test_no_access_out_of_bounds_under_the_sanitizers(tmp_path, repo_dir):
    compiler = build.find_compiler("cpu")
    if compiler is None:
        pytest.skip("no C++ compiler on this machine")
    checks = "-fsanitize=address,undefined,float-cast-overflow", "-fno-sanitize-recover=all"
    sources = [
        *(build.CSRC / f"{name}.cpp" for name in ("common", "mask_scores", "ms_deform_attn")),
        repo_dir / "tests/ops/ms_deform_attn_fuzz.cpp",
    ]
    program = tmp_path / "fuzz"
    command = [compiler, *build.cpu_recipe().flags, "-O1", "-g", *checks, *map(str, sources), "-o", str(program)]
    subprocess.run(command, check=True)
    environment = os.environ | {"ASAN_OPTIONS": "detect_leaks=0"}  # leaks need ptrace, which containers may forbid
    done = subprocess.run([program], env=environment, capture_output=True, text=True)
    assert (done.returncode, done.stdout) == (0, "6000\n"), done.stderr


def test_tracing_sees_one_operation():
    shapes = torch.tensor([[2, 3]])
    inputs = torch.randn(1, 6, 1, 4), torch.rand(1, 5, 1, 1, 2, 2), torch.rand(1, 5, 1, 1, 2)
    backends._choose.cache_clear()  # so that the first use is traced
    traced = torch.jit.trace(lambda value, *rest: ms_deform_attn(value, shapes, *rest), inputs)
    torch.testing.assert_close(traced(*inputs), ms_deform_attn(inputs[0], shapes, *inputs[1:]))
