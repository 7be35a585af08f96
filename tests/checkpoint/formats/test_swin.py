"""Swin classifiers compute in our backbone what they compute there, up to the norms that only we have."""

import pytest
import timm
import torch
import torch.nn.functional as F
from torch import nn

from mask2former.checkpoint import load_weights
from mask2former.checkpoint.formats.swin import ORIGINAL, TIMM
from mask2former.modeling.backbone.swin import SwinTransformer, relative_position_index
from mask2former.utils.errors import UserError

DEPTHS, HEADS = (2, 2, 4, 2), (1, 2, 4, 8)


def timm_swin(**kwargs):
    sizes = {"embed_dim": 16, "depths": DEPTHS, "num_heads": HEADS, "window_size": 2, "img_size": 128}
    network = timm.create_model("swin_tiny_patch4_window7_224", **sizes, **kwargs).eval()
    with torch.no_grad():
        for parameter in network.parameters():
            parameter.add_(torch.randn_like(parameter) * 0.02)
    return network


def our_swin(**kwargs):
    return SwinTransformer(**({"channels": 16, "depths": DEPTHS, "num_heads": HEADS, "window": 2} | kwargs)).eval()


def authors_names(timm_state):
    """The classifier as its authors' code saves it, with masks and indices."""
    state = {}
    for name, tensor in timm_state.items():
        parts = name.split(".")
        if parts[2:3] == ["downsample"]:
            parts[1] = str(int(parts[1]) - 1)
        state[".".join(parts).replace("head.fc.", "head.")] = tensor
        if name.endswith("relative_position_bias_table"):
            state[".".join(parts[:-1]) + ".relative_position_index"] = relative_position_index(2)
            if parts[3] == "1":
                state[".".join(parts[:-2]) + ".attn_mask"] = torch.zeros(64, 4, 4)
    return state


def saved(state, path):
    torch.save({"model": state}, path)  # as the authors' files are
    return str(path)


@pytest.mark.parametrize(
    ("names", "form", "classifier"),
    [(dict, TIMM, {"norm", "head.fc"}), (authors_names, ORIGINAL, {"norm", "head"})],
    ids=["timm", "authors"],
)
def test_features(names, form, classifier, tmp_path):
    theirs, backbone = timm_swin(), our_swin()
    state = names(theirs.state_dict())
    report = load_weights(nn.ModuleDict({"backbone": backbone}), saved(state, tmp_path / "w.pth"))
    assert set(report.missing) == {f"backbone.norm{i}.{leaf}" for i in range(4) for leaf in ("weight", "bias")}
    assert {name.rpartition(".")[0] for name in report.unexpected} == classifier and not report.reshaped
    assert report.notes == (f"names of {form.title} read as ours",)
    image = torch.rand(1, 3, 128, 128)
    with torch.no_grad():
        x = theirs.patch_embed(image)
        for stage, found in zip(theirs.layers, backbone(image).values(), strict=True):
            x = stage(x)
            expected = F.layer_norm(x, x.shape[-1:]).permute(0, 3, 1, 2)  # ours have norms, fresh ones
            torch.testing.assert_close(found, expected, atol=1e-5, rtol=1e-5)
    back = form.from_ours({f"backbone.{name}": tensor for name, tensor in backbone.state_dict().items()})
    left = {n for n in state if n.rpartition(".")[0] in classifier or n.endswith("attn_mask")}
    assert back.keys() == state.keys() - left and all(torch.equal(t, state[n]) for n, t in back.items())


def test_timm_reads_what_is_written(tmp_path):
    ours = {f"backbone.{name}": tensor for name, tensor in our_swin().state_dict().items()}
    missing, unexpected = timm_swin().load_state_dict(TIMM.from_ours(ours), strict=False)
    assert set(missing) == {"norm.weight", "norm.bias", "head.fc.weight", "head.fc.bias"} and not unexpected


def test_windows_of_another_size_and_positions(tmp_path):
    state = {n.removeprefix("backbone."): t for n, t in our_swin(window=3, pretrain_size=64).state_dict().items()}
    state["absolute_pos_embed"] = state["absolute_pos_embed"].flatten(2).transpose(1, 2)  # [1,S,C]
    backbone = our_swin(window=2, pretrain_size=96)
    report = load_weights(nn.ModuleDict({"backbone": backbone}), saved(state, tmp_path / "w.pth"))
    assert not report.missing and not report.reshaped
    assert {one.name.rpartition(".")[2] for one in report.adapted} == {
        "absolute_pos_embed",
        "relative_position_bias_table",
        "relative_position_index",
    }


def test_another_depth_loads_nothing(tmp_path):
    model = nn.ModuleDict({"backbone": our_swin(depths=(2, 2, 18, 2))})
    before = {n: t.clone() for n, t in model.state_dict().items()}
    with pytest.raises(UserError, match="another architecture"):
        load_weights(model, saved(authors_names(timm_swin().state_dict()), tmp_path / "w.pth"))
    assert all(torch.equal(t, before[n]) for n, t in model.state_dict().items())
