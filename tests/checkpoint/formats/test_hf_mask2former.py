"""Hugging Face's own Mask2Former beside ours, and published layouts under its names."""

import json

import pytest
import torch
from hf_sizes import BACKBONES, STAGES, build_small, load_exactly, randomize

from mask2former.checkpoint.files import load_checkpoint_file
from mask2former.checkpoint.formats import find_format
from mask2former.checkpoint.formats.hf_mask2former import HF_MASK2FORMER
from mask2former.utils.errors import UserError

transformers = pytest.importorskip("transformers")

# L predictions (before the first layer and after each), B images, Q queries, K classes

RECIPES = {"swin": "swin/maskformer2_swin_tiny_bs16_50ep.yaml", "resnet": "maskformer2_R50_bs16_50ep.yaml"}
# as many layers as go through all three levels, and one more
HEAD = {"SEM_SEG_HEAD.TRANSFORMER_ENC_LAYERS": 2, "MASK_FORMER.DEC_LAYERS": 5}
# padded to multiples of 32, so that windows of the first fit no map and of the second each; and not padded
SIZES = [(96, 160), (128, 128), (75, 109)]


@pytest.fixture
def build(repo_dir):
    def build(kind):
        return build_small(repo_dir / "configs/coco/panoptic-segmentation" / RECIPES[kind], kind, HEAD)

    return build


def build_theirs(kind):
    config = transformers.Mask2FormerConfig(
        backbone_config=BACKBONES[kind][1](),
        feature_size=32,
        mask_feature_size=64,
        hidden_dim=64,
        encoder_layers=2,
        dim_feedforward=48,
        num_queries=5,
        decoder_layers=5,
        num_labels=4,
    )
    torch.manual_seed(0)
    return randomize(transformers.Mask2FormerForUniversalSegmentation(config))


@torch.no_grad()
def predict(model, images):
    """Ours: class logits [L,B,Q,K+1] and mask logits [L,B,Q,h,w]."""
    features, memory = model.sem_seg_head.pixel_decoder(model.backbone(images))
    found = model.sem_seg_head.predictor(memory, features)
    return found.class_logits, found.masks().squeeze(3)


@torch.no_grad()
def predict_theirs(model, images):
    out = model(images, output_auxiliary_logits=True)
    every = [*out.auxiliary_logits, {key: out[key] for key in ("class_queries_logits", "masks_queries_logits")}]
    return [torch.stack([one[key] for one in every]) for key in ("class_queries_logits", "masks_queries_logits")]


def assert_same_predictions(ours, theirs):
    for size in SIZES:
        images = torch.randn(2, 3, *size, generator=torch.Generator().manual_seed(2))
        for found, expected in zip(predict(ours, images), predict_theirs(theirs, images)):
            assert len(found) == 5 and expected.std() > 0.1
            torch.testing.assert_close(found, expected, rtol=0, atol=1e-4)


@pytest.mark.parametrize("kind", BACKBONES)
def test_their_model_predicts_the_same_as_ours(build, kind):
    ours, theirs = build(kind), build_theirs(kind)
    assert find_format(theirs.state_dict()) is HF_MASK2FORMER
    load_exactly(ours, HF_MASK2FORMER.to_ours(theirs.state_dict()))
    assert_same_predictions(ours, theirs)


@pytest.mark.parametrize("kind", BACKBONES)
@pytest.mark.parametrize("as_file", ["model.safetensors", "pytorch_model.bin"])
def test_their_files_hold_the_same(build, kind, as_file, tmp_path):
    """transformers 5 writes other names for Swin than its modules have: those of 4.x and of the hub."""
    theirs = build_theirs(kind)
    theirs.save_pretrained(tmp_path)
    weights = load_checkpoint_file(str(tmp_path))["model"]
    if as_file == "pytorch_model.bin":
        (tmp_path / "model.safetensors").unlink()
        torch.save(weights, tmp_path / as_file)
        weights = load_checkpoint_file(str(tmp_path))["model"]
    from_modules, from_file = (HF_MASK2FORMER.to_ours(one) for one in (theirs.state_dict(), weights))
    assert from_file.keys() == from_modules.keys()
    assert all(torch.equal(value, from_modules[name]) for name, value in from_file.items())
    assert set(HF_MASK2FORMER.from_ours(from_file)) == set(weights)


@pytest.mark.parametrize("kind", BACKBONES)
def test_there_and_back_is_exact(build, kind):
    weights = build(kind).state_dict()
    back = HF_MASK2FORMER.to_ours(HF_MASK2FORMER.from_ours(weights))
    assert back.keys() == weights.keys()
    assert all(torch.equal(value, weights[name]) for name, value in back.items())


def test_files_of_the_hub_are_read(build):
    """They were written by transformers 4.26: window indices, and no norm that nothing uses."""
    weights = build("swin").state_dict()
    written = HF_MASK2FORMER.from_ours(weights)
    hub = {name: value for name, value in written.items() if ".swin." not in name}
    for name, value in weights.items():
        if name.endswith("relative_position_index"):
            layer = name.removeprefix("backbone.").replace(".attn.", ".attention.self.")
            hub[f"model.pixel_level_module.encoder.encoder.{layer}"] = value
    assert len(hub) == len(written) - 2 + 6
    load_exactly(build("swin"), HF_MASK2FORMER.to_ours(hub))


SWIN_SIZES = {
    "tiny": {"embed_dim": 96, "depths": [2, 2, 6, 2], "num_heads": [3, 6, 12, 24], "window_size": 7},
    "large": {"embed_dim": 192, "depths": [2, 2, 18, 2], "num_heads": [6, 12, 24, 48], "window_size": 12},
}
PUBLISHED = {
    "coco/panoptic-segmentation/swin/maskformer2_swin_tiny_bs16_50ep.yaml": (133, 100, "tiny"),
    "coco/panoptic-segmentation/swin/maskformer2_swin_large_IN21k_384_bs16_100ep.yaml": (133, 200, "large"),
    "ade20k/semantic-segmentation/swin/maskformer2_swin_tiny_bs16_160k.yaml": (150, 100, "tiny"),
    "coco/panoptic-segmentation/maskformer2_R50_bs16_50ep.yaml": (133, 100, None),
    "cityscapes/instance-segmentation/maskformer2_R50_bs16_90k.yaml": (8, 100, None),
}


@pytest.fixture(scope="module")
def published(shared_dir):
    """Published recipe -> its tensors on the meta device."""
    book = json.loads((shared_dir / "reference" / "state_dicts.json").read_text())
    layouts = {
        key: {name: torch.empty(shape, device="meta") for name, shape in layout.items()}
        for key, layout in book["layouts"].items()
    }
    families = ("mask2former", "dinat")
    return {recipe: layouts[entry["layout"]] for one in families for recipe, entry in book["recipes"][one].items()}


def shapes(weights):
    """Without BatchNorm's counters, which frozen ones do not have and no output depends on."""
    return {name: tuple(x.shape) for name, x in weights.items() if not name.endswith("num_batches_tracked")}


@pytest.mark.parametrize("recipe", PUBLISHED)
def test_published_sizes_have_the_published_tensors(published, recipe):
    """Their heads and ResNet are of the published size where nothing is said."""
    num_labels, num_queries, swin = PUBLISHED[recipe]
    backbone = (
        transformers.SwinConfig(**SWIN_SIZES[swin], out_features=STAGES)
        if swin
        else transformers.ResNetConfig(out_features=STAGES)
    )
    with torch.device("meta"):
        theirs = transformers.Mask2FormerForUniversalSegmentation(
            transformers.Mask2FormerConfig(backbone_config=backbone, num_labels=num_labels, num_queries=num_queries)
        )
    ours = HF_MASK2FORMER.to_ours(theirs.state_dict())
    assert shapes(ours) == shapes(published[recipe])
    written = HF_MASK2FORMER.from_ours(published[recipe])
    assert shapes(written) == shapes(HF_MASK2FORMER.from_ours(ours))
    assert len(written) == len(theirs.state_dict())  # the names of modules are others than those of files


def test_models_without_a_counterpart_are_refused(published):
    refused = set()
    for recipe, weights in published.items():
        try:
            assert shapes(HF_MASK2FORMER.to_ours(HF_MASK2FORMER.from_ours(weights))) == shapes(weights)
        except UserError as error:
            assert "Hugging Face's Mask2Former cannot express this model" in str(error)
            refused.add(recipe)
    assert refused == {name for name in published if "dinat" in name}
