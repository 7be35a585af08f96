"""timm's own weights, from a Hugging Face cache made here; no network is asked."""

from __future__ import annotations

import pytest
import safetensors.torch
import timm
import torch
from huggingface_hub import constants

from mask2former.checkpoint import load_backbone_weights
from mask2former.modeling.backbone.timm import TimmBackbone
from mask2former.utils.errors import UserError


@pytest.fixture
def cache(tmp_path, monkeypatch):
    """A function that puts the weights of a model into an otherwise empty cache; downloads are off."""
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path))
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    monkeypatch.setenv("TORCH_HOME", str(tmp_path))

    def put(model: torch.nn.Module) -> None:
        folder = tmp_path / f"models--{model.pretrained_cfg['hf_hub_id'].replace('/', '--')}"
        for name in ("refs", "snapshots/abc"):
            (folder / name).mkdir(parents=True)
        (folder / "refs/main").write_text("abc")
        safetensors.torch.save_file(model.state_dict(), folder / "snapshots/abc/model.safetensors")

    return put


@pytest.mark.parametrize("name", ["test_resnet", "test_vit3"])
def test_cached_weights_need_no_network(name, cache):
    theirs = timm.create_model(name)
    cache(theirs)
    backbone = TimmBackbone(name, norm="FrozenBN")
    report = load_backbone_weights(backbone, "pretrained")
    state, found = theirs.state_dict(), backbone.body.state_dict()
    assert found and all(torch.equal(tensor, state[n.removeprefix("model.")]) for n, tensor in found.items())
    assert all(n.startswith("pyramid.") for n in report.missing)
    assert "MODEL.PIXEL_MEAN [127.5, 127.5, 127.5]" in str(report) and "model.safetensors" in str(report)


@pytest.mark.parametrize("channels", [1, 4])
def test_other_channels(channels, cache):
    theirs = timm.create_model("test_resnet")
    cache(theirs)
    backbone = TimmBackbone("test_resnet", in_channels=channels)
    assert f"from 3 to {channels} channels" in str(load_backbone_weights(backbone, "pretrained"))
    kernel, own = theirs.conv1[0].weight, backbone.body.conv1[0].weight
    expected = kernel.sum(1, keepdim=True) if channels == 1 else kernel[:, [0, 1, 2, 0]] * 3 / 4
    torch.testing.assert_close(own, expected)


def test_positions_are_resized_for_another_image_size(cache):
    cache(timm.create_model("test_vit3"))
    backbone = TimmBackbone("test_vit3", image_size=320)
    report = load_backbone_weights(backbone, "pretrained")
    assert "body.model.pos_embed" in report.matched and not report.reshaped
    assert backbone.body.model.pos_embed.shape[1] == 1 + (320 // 16) ** 2  # the class token's is among them


def test_what_is_not_there_is_told(cache):
    backbone = TimmBackbone("test_resnet")
    before = {n: t.clone() for n, t in backbone.state_dict().items()}
    with pytest.raises(UserError, match=r"not in the cache .*huggingface\.co/timm/test_resnet.*MODEL\.TIMM\.WEIGHTS"):
        load_backbone_weights(backbone, "pretrained")
    assert all(torch.equal(t, before[n]) for n, t in backbone.state_dict().items())


def test_a_model_without_published_weights_is_told(cache):
    with pytest.raises(UserError, match="no pretrained weights for 'darknet17'"):
        load_backbone_weights(TimmBackbone("darknet17"), "pretrained")
