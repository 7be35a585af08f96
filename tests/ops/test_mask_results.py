"""The compiled functions give what their plain torch definitions give."""

import pytest
import torch

from mask2former.modeling import full_size
from mask2former.modeling.resizing import Geometry
from mask2former.ops import backends, build, mask_results

pytestmark = pytest.mark.skipif(build.library("cpu") is None, reason="no C++ compiler")

GEOMETRIES = [
    Geometry(padded=(64, 96), image=(50, 83), output=(101, 167)),
    Geometry(padded=(64, 96), image=(61, 96), output=(19, 23)),
    Geometry(padded=(64, 96), image=(57, 90), output=(57, 90)),
    Geometry(padded=(64, 96), image=(1, 1), output=(1, 5)),
    Geometry(padded=(16, 24), image=(15, 20), output=(40, 7)),
]
CASES = [(g, q, d) for g in GEOMETRIES for q in (1, 8, 21) for d in (torch.float32, torch.float64, torch.bfloat16)]


def logits(queries, dtype):
    coarse = 8 * torch.randn(1, queries, 6, 8, generator=torch.Generator().manual_seed(queries), dtype=torch.float64)
    return torch.nn.functional.interpolate(coarse, size=(16, 24), mode="bilinear")[0].to(dtype)


def _identity(*sizes):
    return [(torch.arange(n)[:, None], torch.ones(n, 1)) for n in sizes]


@pytest.mark.parametrize(("geometry", "queries", "dtype"), CASES)
def test_owners(both, geometry, queries, dtype):
    maps, scores = logits(queries, dtype), torch.linspace(0.5, 1, queries, dtype=dtype)
    expected, found = both(lambda: full_size.owners(maps, scores, geometry))
    assert torch.equal(found[0], expected[0])
    assert torch.equal(found[1], expected[1])


@pytest.mark.parametrize(("geometry", "queries", "dtype"), CASES)
def test_binary(both, geometry, queries, dtype):
    maps = logits(queries, dtype)
    expected, found = both(lambda: full_size.binary(maps, geometry))
    assert torch.equal(found[0], expected[0])
    torch.testing.assert_close(found[1], expected[1], atol=1e-12 if dtype == torch.float64 else 1e-6, rtol=0)
    assert torch.equal(found[2], expected[2])


@pytest.mark.parametrize("resize_first", [True, False])
@pytest.mark.parametrize(("geometry", "queries", "dtype"), CASES)
def test_class_scores(both, geometry, queries, dtype, resize_first):
    """With more classes than are added up at a time, and a number of them that does not divide."""
    maps = logits(queries, dtype)
    probability = torch.rand(queries, 13, generator=torch.Generator().manual_seed(1), dtype=torch.float64) / queries
    arguments = probability.to(dtype), maps, geometry, resize_first
    expected, found = both(lambda: full_size.class_scores(*arguments))
    assert found.dtype == expected.dtype == dtype
    tolerance = {torch.float64: 1e-14, torch.float32: 1e-5, torch.bfloat16: 1e-2}[dtype]
    torch.testing.assert_close(found, expected, atol=tolerance, rtol=0)


@pytest.mark.parametrize("given", [-torch.inf, torch.inf, torch.nan, 1e30, -1e30])
def test_class_scores_of_extreme_logits(both, given):
    """They are those of torch, and concern their own pixels only."""
    same, maps = Geometry(padded=(2, 4), image=(2, 4), output=(2, 4)), torch.zeros(3, 2, 4)
    maps[1, 0, 2] = given
    expected, found = both(lambda: full_size.class_scores(torch.ones(3, 2), maps, same, True))
    torch.testing.assert_close(found, expected, equal_nan=True)


def test_the_first_of_equals_owns_the_pixel(both):
    """Across and inside groups of queries."""
    geometry, maps = GEOMETRIES[0], logits(1, torch.float32).expand(21, -1, -1)
    scores = torch.full((21,), 0.5)
    scores[[5, 7, 13]] = 0.75
    _, found = both(lambda: full_size.owners(maps, scores, geometry))
    assert set((found[0] // 2).flatten().tolist()) == {5}


def test_extreme_logits(both):
    """Infinite and huge ones as in torch; a NaN belongs to nobody and stays where it is."""
    same = Geometry(padded=(2, 4), image=(2, 4), output=(2, 4))
    maps = torch.tensor([[[0.0, -0.0, 1e30, -1e30], [torch.inf, -torch.inf, 1e-30, 90]]]).repeat(3, 1, 1)
    expected, found = both(lambda: full_size.owners(maps, torch.tensor([0.5, 1, 0.7]), same))
    assert torch.equal(found[0], expected[0])
    expected, found = both(lambda: full_size.binary(maps, same))
    assert torch.equal(found[0], expected[0])
    torch.testing.assert_close(found[1], expected[1])
    maps[1, 0, 0] = torch.nan
    _, found = both(lambda: full_size.owners(maps, torch.tensor([0.5, 1, 0.7]), same))
    assert found[0][0, 0] == 2 * 2 + 1
    states, areas = mask_results.mask_owners(torch.full((3, 2, 4), torch.nan), torch.ones(3), *_identity(2, 4))
    assert states.unique().tolist() == [0]
    assert areas.tolist() == [0, 0, 0]
    _, found = both(lambda: full_size.binary(maps, same))
    assert not found[0][1, 0, 0]


def test_no_mask_and_gradients_go_to_torch(monkeypatch):
    monkeypatch.setenv(backends.VARIABLE, "cpp")
    maps = logits(3, torch.float32)
    assert mask_results.served(maps)
    assert not mask_results.served(maps[:0])
    assert not mask_results.served(maps.clone().requires_grad_())
    assert not mask_results.served(maps, torch.ones(3, 1, requires_grad=True))
    assert full_size.binary(maps[:0], GEOMETRIES[0])[0].shape == (0, 101, 167)


def test_the_default_device_does_not_matter(monkeypatch):
    monkeypatch.setenv(backends.VARIABLE, "cpp")
    maps, scores, geometry = logits(3, torch.float32), torch.tensor([0.5, 0.75, 1]), GEOMETRIES[0]

    def outputs():
        results = *full_size.owners(maps, scores, geometry), *full_size.binary(maps, geometry)
        return [*results, full_size.class_scores(scores[:, None], maps, geometry, True)]

    expected = outputs()
    with torch.device("meta"):
        found = outputs()
    assert all(map(torch.equal, found, expected))


def test_tensors_of_another_device_are_named():
    maps, scores, axes = logits(3, torch.float32), torch.ones(3), _identity(16, 24)
    masks = torch.empty(3, 16, 24, dtype=torch.bool, device="meta")
    with pytest.raises(ValueError, match="mask_logits must be on the CPU, got meta"):
        mask_results.mask_scores(scores[:, None], maps.to("meta"), axes, axes)
    with pytest.raises(ValueError, match="probability must be on the CPU"):
        mask_results.mask_scores(scores[:, None].to("meta"), maps, axes, axes)
    with pytest.raises(ValueError, match="scores must be on the CPU"):
        mask_results.mask_owners(maps, scores.to("meta"), *axes)
    with pytest.raises(ValueError, match="masks must be on the CPU"):
        mask_results.mask_binary(maps, *axes, masks)
    with pytest.raises(ValueError, match="columns' weight must be on the CPU"):
        mask_results.mask_scores(scores[:, None], maps, axes, (axes[0], (axes[1][0], axes[1][1].to("meta"))))


def test_what_does_not_fit_is_an_error():
    maps, index = logits(3, torch.float32), torch.full((5, 1), 24)
    weight, same = torch.ones(5, 1), _identity(5, 5)
    for bad in ([(index - 9, weight), (index, weight)], same[::-1]), (same, [same[0], (index - 19, weight)]):
        with pytest.raises(RuntimeError, match="sizes do not fit"):
            mask_results.mask_scores(torch.ones(3, 1), maps, *bad)
    with pytest.raises(ValueError, match="masks must be bool"):
        mask_results.mask_binary(maps, (index - 9, weight), (index - 1, weight), torch.empty(3, 5, 6, dtype=torch.bool))


def test_scores_of_other_queries_are_an_error():
    with pytest.raises(ValueError, match=r"probability must be \[Q=3,K\]"):
        mask_results.mask_scores(torch.ones(2, 1), logits(3, torch.float32), _identity(5, 5), _identity(5, 5))
