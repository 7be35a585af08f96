"""mmdetection's Mask2Former: every tensor has its place, both ways, in both releases."""

import pytest
import torch
from mmdetection_names import tensors_of

from mask2former.checkpoint import load_weights
from mask2former.checkpoint.formats import find_format
from mask2former.checkpoint.formats.mmdetection import MMDETECTION_2, MMDETECTION_3
from mask2former.config import load_cfg
from mask2former.modeling import build_model
from mask2former.utils.errors import UserError

RELEASES = {2: MMDETECTION_2, 3: MMDETECTION_3}
# recipe below configs/mmdet/ -> backbone, queries
RECIPES = {
    "mask2former_r50_8xb2-lsj-50e": ("r50", 100),
    "mask2former_r101_8xb2-lsj-50e": ("r101", 100),
    "mask2former_swin-t-p4-w7-224_8xb2-lsj-50e": ("swin-t", 100),
    "mask2former_swin-s-p4-w7-224_8xb2-lsj-50e": ("swin-s", 100),
    "mask2former_swin-b-p4-w12-384_8xb2-lsj-50e": ("swin-b", 100),
    "mask2former_swin-b-p4-w12-384-in21k_8xb2-lsj-50e": ("swin-b", 100),
    "mask2former_swin-l-p4-w12-384-in21k_16xb1-lsj-100e": ("swin-l", 200),
}
CLASSES = {"coco-panoptic": 133, "coco": 80}


def random(shapes):
    return {name: torch.randint(9, shape) if _counts(name) else torch.randn(shape) for name, shape in shapes.items()}


def _counts(name):
    return name.endswith(("relative_position_index", "num_batches_tracked"))


def on_meta(shapes):
    return {name: torch.empty(shape, device="meta") for name, shape in shapes.items()}


def shapes_of(weights):
    return {name: tuple(tensor.shape) for name, tensor in weights.items()}


@pytest.fixture(scope="module")
def r50(repo_dir):
    recipe = repo_dir / "configs/mmdet/mask2former_r50_8xb2-lsj-50e_coco-panoptic.yaml"
    return build_model(load_cfg(recipe, ["MODEL.DEVICE", "cpu"]))


@pytest.mark.parametrize("release", RELEASES)
@pytest.mark.parametrize("recipe", RECIPES)
def test_their_checkpoint_is_the_recipe_s_model(recipe, release, repo_dir):
    """Built without storage: names and shapes, for both tasks, and back."""
    backbone, queries = RECIPES[recipe]
    for task, classes in CLASSES.items():
        cfg = load_cfg(repo_dir / f"configs/mmdet/{recipe}_{task}.yaml", ["MODEL.DEVICE", "meta"])
        with torch.device("meta"):
            model = build_model(cfg)
        published = tensors_of(backbone, release, classes, queries)
        weights = on_meta(published)
        assert find_format(weights) is RELEASES[release]
        ours = RELEASES[release].to_ours(weights)
        assert shapes_of(ours) == shapes_of(model.state_dict())
        assert shapes_of(RELEASES[release].from_ours(ours)) == published


@pytest.mark.parametrize("release", RELEASES)
@pytest.mark.parametrize("backbone", ["r50", "swin-t"])
def test_values_come_back(backbone, release):
    theirs = random(tensors_of(backbone, release))
    back = RELEASES[release].from_ours(RELEASES[release].to_ours(theirs))
    assert back.keys() == theirs.keys()
    assert all(torch.equal(back[n], x) for n, x in theirs.items() if not n.endswith("num_batches_tracked"))


def test_releases_differ_in_names_alone():
    theirs = random(tensors_of("r50", 2))
    newer = MMDETECTION_3.from_ours(MMDETECTION_2.to_ours(theirs))
    assert shapes_of(newer) == tensors_of("r50", 3)
    old, new = ("panoptic_head.transformer_decoder.layers.4." + part for part in ("attentions.{}", "{}_attn"))
    for number, part in enumerate(["cross", "self"]):
        assert newer[f"{new.format(part)}.attn.in_proj_weight"] is theirs[f"{old.format(number)}.attn.in_proj_weight"]


def test_parts_in_the_order_of_their_use():
    """Each layer looks at the image first, and levels begin with the coarsest map."""
    weights = on_meta(tensors_of("r50", 2))
    names = {id(tensor): name for name, tensor in weights.items()}
    came_from = {ours: names.get(id(tensor)) for ours, tensor in MMDETECTION_2.to_ours(weights).items()}
    layer = "panoptic_head.transformer_decoder.layers.7"
    for number, part in enumerate(("cross_attention", "self_attention", "ffn")):
        norm = came_from[f"sem_seg_head.predictor.transformer_{part}_layers.7.norm.weight"]
        assert norm == f"{layer}.norms.{number}.weight"
    for level, channels in enumerate((2048, 1024, 512)):
        assert weights[came_from[f"sem_seg_head.pixel_decoder.input_proj.{level}.0.weight"]].shape[1] == channels


@pytest.mark.parametrize("release", RELEASES)
def test_a_file_fills_the_model(release, r50, tmp_path):
    theirs = random(tensors_of("r50", release))
    torch.save({"meta": {"CLASSES": ("a", "b")}, "state_dict": theirs}, tmp_path / "mmdet.pth")
    report = load_weights(r50, str(tmp_path / "mmdet.pth"))
    assert not report.missing and not report.unexpected and not report.reshaped
    assert report.notes == (f"names of mmdetection {release}.x Mask2Former read as ours",)
    loaded = r50.state_dict()
    assert torch.equal(loaded["sem_seg_head.predictor.class_embed.bias"], theirs["panoptic_head.cls_embed.bias"])
    assert torch.equal(loaded["criterion.empty_weight"], torch.tensor([1.0] * 133 + [0.1]))


def test_models_that_mmdetection_has_not(r50, repo_dir):
    weights = dict(r50.state_dict())
    weights["sem_seg_head.pixel_decoder.adapter_2.weight"] = weights.pop("sem_seg_head.pixel_decoder.adapter_1.weight")
    with pytest.raises(UserError, match=r"mmdetection 3.x Mask2Former cannot express .*adapter_2.weight.*--to"):
        MMDETECTION_3.from_ours(weights)
    recipe = repo_dir / "configs/maskformer/ade20k-150/maskformer_R50_bs16_160k.yaml"
    with torch.device("meta"):
        maskformer = build_model(load_cfg(recipe, ["MODEL.DEVICE", "meta"]))
    with pytest.raises(UserError, match="cannot express"):
        MMDETECTION_2.from_ours(maskformer.state_dict())
