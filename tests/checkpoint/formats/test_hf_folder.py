"""Folders for Hugging Face's `from_pretrained`, and what their config.json says."""

import json

import pytest
import torch

from mask2former.checkpoint.files import load_checkpoint_file
from mask2former.checkpoint.formats.hf_config import ImageSettings, backbone_config, mask2former_config
from mask2former.checkpoint.formats.hf_folder import to_transformers
from mask2former.checkpoint.formats.hf_mask2former import HF_MASK2FORMER
from mask2former.config import load_cfg
from mask2former.modeling import build_model
from mask2former.structures import LabelSet
from mask2former.utils.errors import UserError

transformers = pytest.importorskip("transformers")

LABELS = LabelSet(("cat", "dog", "sky", "road"), thing_ids=(0, 1))
RECIPES = {
    "swin": (
        "swin/maskformer2_swin_tiny_bs16_50ep.yaml",
        {"SWIN.EMBED_DIM": 16, "SWIN.DEPTHS": [1, 2, 1, 1], "SWIN.NUM_HEADS": [1, 2, 4, 8], "SWIN.WINDOW_SIZE": 5},
    ),
    "resnet": (
        "maskformer2_R50_bs16_50ep.yaml",
        {"RESNETS.STEM_OUT_CHANNELS": 8, "RESNETS.RES2_OUT_CHANNELS": 16, "RESNETS.WIDTH_PER_GROUP": 4},
    ),
}
HEAD = {
    "DEVICE": "cpu",
    "SEM_SEG_HEAD.NUM_CLASSES": 4,
    "SEM_SEG_HEAD.CONVS_DIM": 64,
    "SEM_SEG_HEAD.MASK_DIM": 32,
    "SEM_SEG_HEAD.TRANSFORMER_ENC_LAYERS": 1,
    "MASK_FORMER.HIDDEN_DIM": 64,
    "MASK_FORMER.ENFORCE_INPUT_PROJ": True,
    "MASK_FORMER.DIM_FEEDFORWARD": 40,
    "MASK_FORMER.NUM_OBJECT_QUERIES": 7,
    "MASK_FORMER.NO_OBJECT_WEIGHT": 0.25,
    "MASK_FORMER.DEC_LAYERS": 4,
}


@pytest.fixture
def build(repo_dir):
    def build(kind):
        recipe, backbone = RECIPES[kind]
        keys = {f"MODEL.{key}": value for key, value in (HEAD | backbone).items()}
        options = [part for pair in keys.items() for part in pair]
        torch.manual_seed(0)
        return build_model(
            load_cfg(str(repo_dir / "configs/coco/panoptic-segmentation" / recipe), options), LABELS
        ).eval()

    return build


@pytest.mark.parametrize("kind", RECIPES)
def test_their_model_loads_all_of_a_folder_and_predicts_the_same(build, kind, tmp_path):
    ours = build(kind)
    folder = to_transformers(ours.state_dict(), tmp_path / "out", "transformers-mask2former", class_names=LABELS.names)
    theirs, info = transformers.Mask2FormerForUniversalSegmentation.from_pretrained(folder, output_loading_info=True)
    assert not any(info.values()), info
    assert theirs.config.id2label == dict(enumerate(LABELS.names))
    assert theirs.criterion.empty_weight.tolist() == [1, 1, 1, 1, 0.25]
    images = torch.randn(1, 3, 64, 96)
    with torch.no_grad():
        out = theirs.eval()(images)
        features, memory = ours.sem_seg_head.pixel_decoder(ours.backbone(images))
        found = ours.sem_seg_head.predictor(memory, features)
    torch.testing.assert_close(found.class_logits[-1], out.class_queries_logits, rtol=0, atol=1e-4)
    torch.testing.assert_close(found.masks()[-1].squeeze(2), out.masks_queries_logits, rtol=0, atol=1e-4)


def test_a_folder_is_read_back_bit_for_bit(build, tmp_path):
    weights = build("swin").state_dict()
    to_transformers(weights, tmp_path, "transformers-mask2former")
    back = HF_MASK2FORMER.to_ours(load_checkpoint_file(str(tmp_path))["model"])
    assert back.keys() == weights.keys()
    assert all(torch.equal(value, weights[name]) for name, value in back.items())


@pytest.fixture
def processor(build, tmp_path):
    image = ImageSettings(mean=(100.0, 110.0, 120.0), std=(50.0, 55.0, 60.0), short=32, long=70, ignore_label=254)
    to_transformers(build("resnet").state_dict(), tmp_path, "transformers-mask2former", image=image)
    return transformers.AutoImageProcessor.from_pretrained(tmp_path)


def test_their_image_processor_normalises_as_ours(processor):
    pixels = torch.randint(0, 256, (3, 32, 64), dtype=torch.uint8)
    expected = (pixels - torch.tensor([100, 110, 120]).view(3, 1, 1)) / torch.tensor([50, 55, 60]).view(3, 1, 1)
    found = processor(pixels, return_tensors="pt")["pixel_values"][0]
    torch.testing.assert_close(found, expected, rtol=0, atol=1e-5)
    assert processor.ignore_index == 254


def test_their_image_processor_stretches_to_the_divisor(processor):
    """The official code pads to it, and this image would be 32 x 50 of 32 x 64 pixels."""
    found = processor(torch.zeros(3, 64, 100, dtype=torch.uint8), return_tensors="pt")
    assert found["pixel_values"].shape == (1, 3, 32, 64) and found["pixel_mask"].all()


def test_what_does_not_fit_is_refused_before_anything_is_written(build, tmp_path):
    weights = build("resnet").state_dict()
    with pytest.raises(UserError, match="2 class names for weights of 4 classes"):
        to_transformers(weights, tmp_path / "a", "transformers-mask2former", class_names=["cat", "dog"])
    grouped = {**weights, "backbone.res2.0.conv2.weight": torch.zeros(4, 2, 3, 3)}
    with pytest.raises(UserError, match="without groups"):
        to_transformers(grouped, tmp_path / "a", "transformers-mask2former")
    assert not (tmp_path / "a").exists()


@pytest.mark.parametrize(
    "recipe",
    [
        "coco/panoptic-segmentation/swin/maskformer2_swin_base_IN21k_384_bs16_50ep.yaml",
        "coco/panoptic-segmentation/maskformer2_R101_bs16_50ep.yaml",
    ],
)
def test_their_model_of_a_published_config_has_the_published_tensors(shared_dir, recipe):
    book = json.loads((shared_dir / "reference" / "state_dicts.json").read_text())
    layout = book["layouts"][book["recipes"]["mask2former"][recipe]["layout"]]
    # values on the meta device are none
    weights = {name: torch.empty(shape, device="meta") for name, shape in layout.items()}
    weights["criterion.empty_weight"] = torch.ones(layout["criterion.empty_weight"])
    config = transformers.Mask2FormerConfig(**mask2former_config(weights))
    with torch.device("meta"):
        theirs = transformers.Mask2FormerForUniversalSegmentation(config)
    ours = HF_MASK2FORMER.to_ours(theirs.state_dict())
    assert {name: list(value.shape) for name, value in ours.items()} == layout


def test_a_backbone_that_they_do_not_have_is_refused():
    with pytest.raises(UserError, match="takes a Swin or a ResNet"):
        backbone_config({"backbone.levels.0.blocks.0.attn.rpb": torch.zeros(1)})
