"""The compiled functions give what their plain torch definitions give."""

import pytest
import torch
from torch._subclasses.fake_tensor import FakeTensorMode

from mask2former.ops import backends, build, point_sample, point_sample_cpp

pytestmark = pytest.mark.skipif(build.library("cpu") is None, reason="no C++ compiler")

DTYPES = [torch.float32, torch.float64]
TOLERANCE = {torch.float32: {"rtol": 1e-5, "atol": 1e-5}, torch.float64: {"rtol": 1e-12, "atol": 1e-12}}


def draw(*shape, dtype=torch.float64, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=dtype)


def some_points(*shape, dtype=torch.float64):
    """In [0,1], its corners, and some beyond it."""
    points = torch.rand(*shape, 2, generator=torch.Generator().manual_seed(1), dtype=dtype) * 1.5 - 0.25
    points[..., :4, :] = torch.tensor([[0, 0], [1, 1], [0, 1], [1, 0]], dtype=dtype)
    return points


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("size", [(7, 9), (1, 5), (4, 1)])
def test_values_and_gradients_of_maps(both, size, dtype):
    maps, points, grad = draw(5, *size, dtype=dtype), some_points(5, 31, dtype=dtype), draw(5, 31, dtype=dtype)

    def run():
        leaf = maps.clone().requires_grad_()
        values = point_sample.sample_map(leaf[:, None], points)[:, 0]
        return values.detach(), *torch.autograd.grad(values, leaf, grad)

    expected, found = both(run)
    torch.testing.assert_close(found, expected, **TOLERANCE[dtype])


def test_gradients_are_derivatives(monkeypatch):
    monkeypatch.setenv(backends.VARIABLE, "cpp")
    maps, points = draw(2, 1, 4, 5).requires_grad_(), some_points(2, 9)
    assert torch.autograd.gradcheck(lambda x: point_sample.sample_map(x, points), maps)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize(("frames", "channels"), [(1, 8), (3, 5)])
def test_features_of_images_and_clips(both, frames, channels, dtype):
    """As they lie in memory on the CPU, and in any other order."""
    maps = draw(2, frames, 6, 7, channels, dtype=dtype).permute(0, 4, 1, 2, 3)
    points = some_points(2, 21, dtype=dtype)
    expected, found = both(lambda: point_sample.sample_features(maps, points))
    assert found.shape == (2, frames * 21, channels)
    torch.testing.assert_close(found, expected, **TOLERANCE[dtype])
    torch.testing.assert_close(point_sample.sample_features(maps.contiguous(), points), expected)


def test_coverage_is_a_map_of_ones():
    points, ones = some_points(2, 50), torch.ones(2, 1, 5, 8, dtype=torch.float64)
    torch.testing.assert_close(point_sample.coverage(points, (5, 8)), point_sample.sample_map(ones, points)[:, 0])


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("ratio", [0, 0.75, 1])
def test_the_least_certain_candidates_are_chosen(both, ratio, dtype):
    logits = draw(3, 16, 16, dtype=dtype) * 3

    def run():
        torch.manual_seed(0)
        points = point_sample.uncertain_points(logits, 40, 3.0, ratio)
        important = int(40 * ratio)
        order = points[:, :important].sort(1).values  # they come in any order
        return torch.cat([order, points[:, important:]], 1), torch.rand(1)

    expected, found = both(run)
    assert torch.equal(found[0], expected[0])
    assert torch.equal(found[1], expected[1])  # as many numbers are drawn


@pytest.mark.parametrize("value", [0.0, torch.nan, torch.inf])
def test_equally_certain_candidates(monkeypatch, value):
    """The first are taken; numbers come before NaN."""
    monkeypatch.setenv(backends.VARIABLE, "cpp")
    candidates, out = some_points(1, 60).clamp(0.2, 0.8), torch.full((1, 20, 2), -1.0, dtype=torch.float64)
    maps = torch.full((1, 4, 4), value, dtype=torch.float64)
    point_sample_cpp.least_certain(maps, candidates, 15, out)
    assert torch.equal(out[:, :15], candidates[:, :15])
    assert (out[:, 15:] == -1).all()
    maps[:, :, 2:] = 0
    left = candidates[..., 0] * 4 - 0.5 < 2
    point_sample_cpp.least_certain(maps, candidates, 15, out)
    if value != 0:
        assert torch.equal(out[:, :15], candidates[~left][None, :15])


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("shared", [False, True])
@pytest.mark.parametrize("pixel", sorted(point_sample_cpp.PIXELS, key=str))
def test_masks_in_windows(both, pixel, shared, dtype):
    inside = {torch.bool: 1, torch.uint8: 255}.get(pixel, -3)
    pixels = torch.where(draw(40) > 0, inside, 0).to(pixel)
    places = torch.tensor([[0, 2, 3, 5, 4, inside], [20, 0, 0, 4, 5, 0], [3, 0, 0, 0, 0, 1], [7, 7, 5, 2, 3, inside]])
    points = some_points(4, 60, dtype=dtype)
    points = points[0] if shared else points
    expected, found = both(lambda: point_sample.sample_mask(pixels, places, (8, 9), points))
    torch.testing.assert_close(found, expected, **TOLERANCE[dtype])


def test_other_pixels_are_read_by_torch(monkeypatch):
    monkeypatch.setenv(backends.VARIABLE, "cpp")
    places = torch.tensor([[0, 0, 0, 2, 2, -1]])
    found = point_sample.sample_mask(torch.tensor([-1, 0, -1, 0], dtype=torch.int8), places, (2, 2), some_points(1, 9))
    assert found.max() > 0


def test_points_that_are_not_numbers_are_nowhere(monkeypatch):
    monkeypatch.setenv(backends.VARIABLE, "cpp")
    points = torch.tensor([[[torch.nan, 0.5], [torch.inf, 0.5], [0.5, -torch.inf], [1e30, -1e30], [0.5, 0.5]]])
    maps, places = torch.ones(1, 1, 4, 4), torch.tensor([[0, 0, 0, 4, 4, 1]])
    wanted = torch.tensor([[False, False, False, False, True]])
    values = point_sample.sample_map(maps, points)[:, 0]
    assert torch.equal(values == 1, wanted)
    assert torch.equal(point_sample.sample_mask(maps.flatten() > 0, places, (4, 4), points) == 1, wanted)
    point_sample.sample_features(maps[:, :, None], points)


def test_windows_beyond_the_pixels_are_an_error(monkeypatch):
    monkeypatch.setenv(backends.VARIABLE, "cpp")
    for place in ([1, 0, 0, 2, 2, 1], [-1, 0, 0, 2, 2, 1], [0, 0, 0, -2, -2, 1]):
        with pytest.raises(RuntimeError, match="sizes do not fit"):
            point_sample.sample_mask(torch.ones(4, dtype=torch.bool), torch.tensor([place]), (2, 2), some_points(5))


def test_tracing_half_precision_and_gradients_of_points_go_to_torch(monkeypatch):
    monkeypatch.setenv(backends.VARIABLE, "cpp")
    called = []
    monkeypatch.setattr(point_sample_cpp, "sample_maps_forward", lambda *_: called.append(1))
    maps, points = draw(1, 1, 4, 4), some_points(1, 6)
    point_sample.sample_map(maps.bfloat16(), points.bfloat16())
    point_sample.sample_map(maps, points.clone().requires_grad_()).sum().backward()
    monkeypatch.setattr(torch.jit, "is_tracing", lambda: True)
    point_sample.sample_map(maps, points)
    assert not called


def test_sizes_that_do_not_fit_are_refused(monkeypatch):
    """Nothing is read or written beyond a tensor."""
    monkeypatch.setenv(backends.VARIABLE, "cpp")
    maps, points = draw(3, 1, 5, 5), some_points(1, 6)
    with pytest.raises(ValueError, match=r"points must be \[N=3,P,2\]"):
        point_sample.sample_map(maps, points)
    with pytest.raises(ValueError, match="points must be"):
        point_sample_cpp.least_certain(maps[:, 0], points, 2, draw(3, 4, 2))
    for images in (2, 4):
        with pytest.raises(ValueError, match="points"):
            point_sample_cpp.sample_pixels(draw(5, 4, 4, 8), some_points(images, 6))
    pixels, places = torch.ones(4, dtype=torch.uint8), torch.tensor([[0, 0, 0, 2, 2, 1]])
    with pytest.raises(ValueError, match="places must be int64"):
        point_sample.sample_mask(pixels, places.int(), (4, 4), points)
    with pytest.raises(ValueError, match="points must be"):
        point_sample.sample_mask(pixels, places, (4, 4), some_points(2, 6))


def test_no_images_and_faked_tensors(monkeypatch):
    monkeypatch.setenv(backends.VARIABLE, "cpp")
    features = draw(0, 1, 4, 4, 8).permute(0, 4, 1, 2, 3)
    assert point_sample.sample_features(features, some_points(0, 6)).shape == (0, 6, 8)
    with FakeTensorMode():
        assert point_sample.sample_map(torch.empty(2, 1, 4, 4), torch.empty(2, 6, 2)).shape == (2, 1, 6)


# Every array is of its size exactly, so that the sanitizer sees any step beside it.
RUN = """
std::vector<float> some_points(int64_t count, float odd) {
  const float places[] = {0, 1, 0.3, -0.0, odd, 1.25, 0.999, -0.01, -odd, 0.5, 1e30, 0.75, -1e30};
  std::vector<float> points(2 * count);
  for (int64_t i = 0; i < 2 * count; ++i) points[i] = places[(i * 5 + i / 13) % 13];
  return points;
}

void run(const int64_t* n, int64_t threads, float odd) {
  const int64_t N = n[0], H = n[1], W = n[2], C = n[3], P = n[4], count = n[5], frames = n[6];
  std::vector<float> maps(N * H * W, 0.5), features(N * H * W * C, 2), grad(N * P, 1), values(N * P);
  std::vector<float> chosen(N * count * 2), found(N * P * C);
  const std::vector<float> points = some_points(N * P, odd), of_clips = some_points(N / frames * P, odd);
  for (size_t i = 0; i < maps.size(); i += 7) maps[i] = odd;
  refused += m2f_sample_maps_forward_f32(maps.data(), points.data(), values.data(), N, H, W, P, threads);
  refused += m2f_least_certain_f32(maps.data(), points.data(), chosen.data(), N, H, W, P, count, count, threads);
  refused += m2f_least_certain_f32(maps.data(), points.data(), chosen.data(), N, H, W, P, P + 1, P + 1, threads);
  refused += m2f_sample_maps_backward_f32(grad.data(), points.data(), maps.data(), N, H, W, P, threads);
  refused += m2f_sample_pixels_f32(features.data(), of_clips.data(), found.data(), N, H, W, C, P, frames, threads);
}

void run_masks(int64_t threads, float odd) {
  // start among S pixels, corner, size, value: six that fit, of which the last two are empty, and seven that do not
  const int64_t S = 20, P = 90, top = INT64_MAX, good = 6;
  const int64_t windows[][6] = {
      {0, 2, 3, 5, 4, 0}, {16, 0, 0, 2, 2, 0}, {19, 8, 7, 1, 1, 1}, {0, -1, -1, 4, 5, 0}, {99, 0, 0, 0, 3, 0},
      {-top, 1, 1, 7, 0, 0}, {17, 0, 0, 2, 2, 0}, {-1, 0, 0, 1, 1, 0}, {0, 0, 0, -2, -2, 0}, {top, 0, 0, 1, 1, 0},
      {0, 0, 0, top, 3, 0}, {0, 0, 0, 20, 20, 0}, {20, 0, 0, 1, 1, 0}};
  for (int64_t bytes : {1, 2, 3, 4, 8})
    for (bool shared : {false, true}) {
      const auto sample = [&](int64_t first, int64_t N, int64_t S, int64_t P, int64_t H, int64_t W) {
        std::vector<uint8_t> pixels(S * bytes);
        std::vector<int64_t> places(windows[first], windows[first] + 6 * N);
        std::vector<float> out(N * P);
        const auto points = some_points(shared ? P : N * P, odd);
        refused += m2f_sample_mask_f32(pixels.data(), places.data(), points.data(), out.data(), S, N, P, H, W, shared,
                                       bytes, threads);
      };
      sample(0, good, S, P, 8, 9);
      sample(0, good, S, 0, 8, 9);
      sample(0, good, S, P, 0, 0);
      sample(0, 0, S, P, 8, 9);
      sample(4, 2, 0, P, 8, 9);
      for (int64_t bad = good; bad < 13; ++bad) sample(bad, 1, S, P, 8, 9);
    }
}
"""
MAIN = """
int main() {
  // N, H, W, C, P, points to choose, frames
  const int64_t cases[][7] = {{5, 7, 9, 3, 200, 50, 1}, {4, 1, 5, 8, 31, 31, 2}, {3, 4, 1, 1, 1, 1, 3},
                              {1, 1, 1, 5, 99, 0, 1}, {2, 33, 17, 2, 0, 0, 1}, {0, 3, 3, 4, 9, 5, 2},
                              {1, 0, 5, 3, 9, 5, 1}, {1, 5, 0, 3, 9, 5, 1}};
  for (int64_t threads : {0, 1, 3})
    for (double odd : {0.25, double(NAN), double(INFINITY)}) {
      for (auto& n : cases) {
        run(n, threads, float(odd));
        run(n, threads, odd);
      }
      run_masks(threads, float(odd));
      run_masks(threads, odd);
    }
  std::printf("%d\\n", refused);
  // more pixels than float32 counts, or than there are indices; more frames than maps; no channels; less than nothing
  refused = m2f_sample_maps_forward_f32(nullptr, nullptr, nullptr, 1, 1, (1 << 24) + 1, 1, 1);
  refused += m2f_sample_maps_forward_f64(nullptr, nullptr, nullptr, 1, 1 << 16, 1 << 16, 1, 1);
  refused += m2f_sample_pixels_f32(nullptr, nullptr, nullptr, 3, 1, 1, 1, 1, 2, 1);
  refused += m2f_sample_pixels_f32(nullptr, nullptr, nullptr, 3, 1, 1, 0, 1, 1, 1);
  refused += m2f_sample_maps_backward_f32(nullptr, nullptr, nullptr, -1, 1, 1, 1, 1);
  refused += m2f_least_certain_f32(nullptr, nullptr, nullptr, 1, 1, 1, 5, -1, 5, 1);
  refused += m2f_sample_mask_f32(nullptr, nullptr, nullptr, nullptr, -1, 0, 0, 0, 0, 0, 1, 1);
  std::printf("%d\\n", refused);
}
"""
DRIVER = '#include <cstdio>\n#include "mask_sample.cpp"\n#include "point_sample.cpp"\nint refused = 0;\n'
DRIVER += RUN + RUN.replace("float", "double").replace("f32", "f64") + MAIN


@pytest.mark.slow
@pytest.mark.parametrize("target", build.CPU_TARGETS)
def test_sanitizers_find_nothing(target, sanitized):
    """Over odd and empty sizes, windows and points beyond the maps, NaN and infinity, and sizes that are refused."""
    maps = 8 * 5 + 2 * (2 * 5 + 6)  # without threads all; with some two cases, and too many points to choose
    masks = 5 * 2 * 12 + 2 * 2 * (4 * 7 + 12)  # likewise: seven windows, and pixels of three bytes
    assert sanitized(DRIVER, target) == f"{(maps + masks) * 2 * 3}\n7\n"
