"""Every benchmark at tiny sizes: ours and the rival give the same result, else a ValueError."""

import pytest
import torch


@pytest.fixture(scope="module")
def script(tool):
    return tool("benchmark")


@pytest.fixture
def hold_quick(script, tool, tmp_path):
    """Function of a benchmark's name that holds its contests, and returns their names and rivals."""

    def hold(name):
        setting = tool("_benchmarks.setting").Setting(tmp_path, torch.device("cpu"), quick=True)
        timings = script.run(name, setting, 1)
        assert all(timing.ratio > 0 and timing.memory is None for timing in timings)
        return [(timing.name, timing.rival_name) for timing in timings]

    return hold


@pytest.fixture
def no_transformers(script, monkeypatch):
    for module in (script.forward, script.step):
        monkeypatch.setattr(module, "has_transformers", lambda benchmark: False)


@pytest.mark.parametrize(("name", "count"), [("op", 6), ("postprocess", 3), ("ap", 2), ("pq", 2), ("mapper", 2)])
def test_both_sides_give_the_same(hold_quick, name, count):
    assert len(set(hold_quick(name))) == count


@pytest.mark.usefixtures("no_transformers")
def test_models_give_the_same_with_plain_ops(hold_quick):
    names = [name for name, rival in hold_quick("forward") if rival == "ours with plain torch ops"]
    assert names == [f"forward {model}, 64x64" for model in ("R50", "Swin-T", "DiNAT-L")]
    assert [rival for _, rival in hold_quick("step")] == ["ours with plain torch ops"]


@pytest.mark.slow
@pytest.mark.parametrize(("name", "count"), [("forward", 2), ("step", 1)])
def test_models_give_the_same_as_hugging_faces(hold_quick, name, count):
    pytest.importorskip("transformers")
    pytest.importorskip("mask2former.checkpoint.formats")
    assert [rival for _, rival in hold_quick(name)].count("Hugging Face's Mask2Former") == count


def test_what_is_missing_is_said(tool, monkeypatch, capsys):
    models = tool("_benchmarks.models")
    monkeypatch.setattr(models.importlib.util, "find_spec", lambda name: None)
    assert not models.has_transformers("step")
    assert capsys.readouterr().out == (
        "step: not beside Hugging Face's Mask2Former, since transformers is not installed\n"
    )


def test_forcing_plain_ops_leaves_the_environment_as_it_was(tool, monkeypatch):
    models, seen = tool("_benchmarks.models"), []
    for before in (None, "cpp"):
        if before:
            monkeypatch.setenv("MASK2FORMER_OPS", before)
        models.with_torch_ops(lambda: seen.append(models.os.environ["MASK2FORMER_OPS"]))
        assert models.os.environ.get("MASK2FORMER_OPS") == before
    assert seen == ["torch", "torch"]
