"""Counting parameters, operations and activations of a recipe's model."""

import re

import pytest
import torch
from torch import nn


@pytest.fixture(scope="module")
def script(tool):
    return tool("analyze_model")


@pytest.fixture
def run(tool, script):
    return lambda *words: tool("_common").run_main(script.main, [str(word) for word in words])


def test_every_task_of_a_small_model(run, shapes, capsys):
    words = ["--config-file", shapes, "--tasks", "parameter", "structure", "flop", "activation"]
    assert run(*words, "--input-size", 64, 96) == 0
    out = capsys.readouterr().out
    assert "MSDeformAttnPixelDecoder(" in out
    for unit in ("M parameters", "G multiply-adds per image", "M activations per image"):
        assert float(re.search(rf"([\d.]+) {unit}", out)[1]) > 0
    assert "scaled_dot_product_attention" in out


def test_images_of_the_data_set_are_counted_on(run, shapes, capsys):
    assert run("--config-file", shapes, "--tasks", "flop", "--num-inputs", 2, "INPUT.MIN_SIZE_TEST", 64) == 0
    assert "± 0.00 G multiply-adds per image (mean of 2)" in capsys.readouterr().out


def test_parameters_are_those_of_the_model(run, shapes, tool, capsys):
    from mask2former.modeling import build_model

    assert run("--config-file", shapes, "--tasks", "parameter") == 0
    cfg = tool("_common").load_registered(shapes)
    count = sum(p.numel() for p in build_model(cfg).parameters())
    assert f"{count / 1e6:.2f} M parameters" in capsys.readouterr().out


def test_attention_is_counted_as_its_two_products(script):
    class Attention(nn.Module):
        def forward(self, q, k, v):
            return nn.functional.scaled_dot_product_attention(q, k, v)

    q, kv = torch.rand(2, 3, 5, 4), torch.rand(2, 3, 7, 4)
    for analysis, handle, expected in (
        (script.FlopCountAnalysis, script._attention_flops, 2 * 3 * 5 * 7 * (4 + 4)),
        (script.ActivationCountAnalysis, script._attention_activations, 2 * 3 * 5 * (7 + 4)),
    ):
        assert analysis(Attention(), (q, kv, kv)).set_op_handle(script.ATTENTION, handle).total() == expected


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("--input-size", "0", "5"), "1 pixel or more"),
        (("DATASETS.TEST", "[]"), "--input-size H W"),
        (("DATASETS.TEST", "[missing_val]"), "--input-size H W"),
    ],
)
def test_mistakes_are_told(run, shapes, capsys, words, message):
    assert run("--config-file", shapes, "--tasks", "activation", "--num-inputs", 1, *words) == 2
    assert message in capsys.readouterr().err
