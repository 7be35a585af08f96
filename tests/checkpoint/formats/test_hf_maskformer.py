"""Hugging Face's own MaskFormer beside ours, and published layouts under its names."""

import json

import pytest
import torch
from hf_sizes import BACKBONES, LABELS, STAGES, build_small, load_exactly, randomize
from safetensors.torch import load_file

from mask2former.checkpoint.formats import find_format
from mask2former.checkpoint.formats.hf_folder import to_transformers
from mask2former.checkpoint.formats.hf_maskformer import HF_MASKFORMER
from mask2former.utils.errors import UserError

transformers = pytest.importorskip("transformers")

RECIPES = {"swin": "swin/maskformer_swin_tiny_bs16_160k.yaml", "resnet": "maskformer_R50_bs16_160k.yaml"}
SIZES = [(75, 109), (64, 64)]  # one is a multiple of neither windows nor strides


@pytest.fixture
def build(repo_dir):
    def build(kind):
        return build_small(
            repo_dir / "configs/maskformer/ade20k-150" / RECIPES[kind], kind, {"MASK_FORMER.DEC_LAYERS": 3}
        )

    return build


def build_theirs(kind):
    decoder = transformers.DetrConfig(d_model=64, decoder_layers=3, decoder_ffn_dim=48, num_queries=5)
    config = transformers.MaskFormerConfig(
        backbone_config=BACKBONES[kind][1](),
        decoder_config=decoder,
        fpn_feature_size=32,
        mask_feature_size=64,
        num_labels=4,
    )
    torch.manual_seed(0)
    return randomize(transformers.MaskFormerForInstanceSegmentation(config))


@torch.no_grad()
def predict(model, images):
    """Ours: class logits [L,B,Q,K+1] and mask logits [L,B,Q,h,w] of every layer."""
    maps = model.backbone(images)
    features, _ = model.sem_seg_head.pixel_decoder(maps)
    found = model.sem_seg_head.predictor([maps["res5"]], features)
    return found.class_logits, found.masks().squeeze(3)


@torch.no_grad()
def predict_theirs(model, images):
    """The same of theirs, with its final norm after every layer, which its own auxiliary predictions lack."""
    out = model(images, output_hidden_states=True)
    # before the first layer, after each one; only the last is normalised
    _, *states, last = out.transformer_decoder_hidden_states
    norm = model.model.transformer_module.decoder.layernorm
    states = torch.stack([*(norm(state) for state in states), last])
    masks = torch.einsum("lbqc,bchw->lbqhw", model.mask_embedder(states), out.pixel_decoder_last_hidden_state)
    classes = model.class_predictor(states)
    torch.testing.assert_close(classes[-1], out.class_queries_logits)
    torch.testing.assert_close(masks[-1], out.masks_queries_logits)
    return classes, masks


def assert_same_predictions(ours, theirs):
    for size in SIZES:
        images = torch.randn(2, 3, *size, generator=torch.Generator().manual_seed(2))
        for found, expected in zip(predict(ours, images), predict_theirs(theirs, images)):
            assert len(found) == 3 and expected.abs().max() > 0.1
            torch.testing.assert_close(found, expected, rtol=0, atol=1e-4)


@pytest.mark.parametrize("kind", BACKBONES)
def test_their_model_predicts_the_same_as_ours(build, kind):
    ours, theirs = build(kind), build_theirs(kind)
    assert find_format(theirs.state_dict()) is HF_MASKFORMER
    load_exactly(ours, HF_MASKFORMER.to_ours(theirs.state_dict()))
    assert_same_predictions(ours, theirs)


@pytest.mark.parametrize("kind", BACKBONES)
def test_their_files_hold_the_same(build, kind, tmp_path):
    """transformers 5 writes other names than its modules have: those of 4.x and of the hub."""
    theirs = build_theirs(kind)
    theirs.save_pretrained(tmp_path)
    weights = load_file(tmp_path / "model.safetensors")
    assert set(weights) != set(theirs.state_dict())
    from_modules = HF_MASKFORMER.to_ours(theirs.state_dict())
    from_file = HF_MASKFORMER.to_ours(weights)
    assert from_file.keys() == from_modules.keys()
    assert all(torch.equal(value, from_modules[name]) for name, value in from_file.items())
    assert set(HF_MASKFORMER.from_ours(from_file)) == set(weights)


@pytest.mark.parametrize("kind", BACKBONES)
def test_a_folder_of_our_weights_predicts_the_same_there(build, kind, tmp_path):
    ours = build(kind)
    to_transformers(ours.state_dict(), tmp_path, HF_MASKFORMER.name, class_names=LABELS.names)
    theirs, report = transformers.MaskFormerForInstanceSegmentation.from_pretrained(tmp_path, output_loading_info=True)
    assert not any(report.values()), report
    assert_same_predictions(ours, theirs.eval())
    assert list(theirs.config.id2label.values()) == list(LABELS.names)
    assert theirs.config.no_object_weight == pytest.approx(float(ours.criterion.empty_weight[-1]))
    image = torch.randint(0, 256, (3, 75, 109), dtype=torch.uint8)
    processor = transformers.AutoImageProcessor.from_pretrained(tmp_path)
    (given,) = processor(image, do_resize=False, return_tensors="pt")["pixel_values"]
    torch.testing.assert_close(given, (image - ours.pixel_mean) / ours.pixel_std, rtol=0, atol=1e-5)


@pytest.mark.parametrize("kind", BACKBONES)
def test_there_and_back_is_exact(build, kind):
    weights = build(kind).state_dict()
    back = HF_MASKFORMER.to_ours(HF_MASKFORMER.from_ours(weights))
    assert back.keys() == weights.keys()
    assert all(torch.equal(value, weights[name]) for name, value in back.items())


def test_a_plain_swin_of_theirs_is_read(build):
    """SwinBackbone, where config.json names a backbone instead of describing one; it has its names, no indices."""
    ours, theirs = build("swin"), build_theirs("swin")
    backbone = transformers.SwinBackbone(BACKBONES["swin"][1]())
    theirs.model.pixel_level_module.encoder = randomize(backbone)
    load_exactly(ours, HF_MASKFORMER.to_ours(theirs.state_dict()))
    assert_same_predictions(ours, theirs)


def test_their_auxiliary_predictions_are_of_states_that_were_not_normalised():
    """And the first is of the zeros before the first layer. The official code normalises each and has none of that."""
    theirs = build_theirs("resnet")
    theirs.config.use_auxiliary_loss = True
    with torch.no_grad():
        out = theirs(torch.randn(1, 3, 64, 64), output_hidden_states=True, output_auxiliary_logits=True)
        states = out.transformer_decoder_hidden_states
        assert not states[0].any() and len(out.auxiliary_logits) == len(states) - 1 == 3
        for state, found in zip(states, out.auxiliary_logits):
            torch.testing.assert_close(found["class_queries_logits"], theirs.class_predictor(state))


def test_their_auxiliary_loss_of_the_decoder_is_another_model():
    """So it is never on in a config.json of ours: it gives the next layer what the final norm makes of a state."""
    theirs, images = build_theirs("resnet"), torch.randn(1, 3, 64, 64)
    with torch.no_grad():
        expected = theirs(images).class_queries_logits
        theirs.model.transformer_module.decoder.config.auxiliary_loss = True
        found = theirs(images).class_queries_logits
    assert (found - expected).abs().max() > 0.01


SWIN_T = {"embed_dim": 96, "depths": [2, 2, 6, 2], "num_heads": [3, 6, 12, 24], "window_size": 7}
SWIN_B = {"embed_dim": 128, "depths": [2, 2, 18, 2], "num_heads": [4, 8, 16, 32], "window_size": 12}
# published recipes that have a counterpart among facebook/maskformer-*; COCO's ResNets there are of COCO-Stuff
PUBLISHED = {
    "ade20k-150/swin/maskformer_swin_tiny_bs16_160k.yaml": (150, SWIN_T),
    "ade20k-150/swin/maskformer_swin_base_IN21k_384_bs16_160k_res640.yaml": (150, SWIN_B),
    "coco-panoptic/swin/maskformer_panoptic_swin_tiny_bs64_554k.yaml": (133, SWIN_T),
    "coco-panoptic/swin/maskformer_panoptic_swin_base_IN21k_384_bs64_554k.yaml": (133, SWIN_B),
    "ade20k-150/maskformer_R50_bs16_160k.yaml": (150, None),
    "coco-stuff-10k-171/maskformer_R50_bs32_60k.yaml": (171, None),
}


@pytest.fixture(scope="module")
def published(shared_dir):
    """Published recipe -> its tensors on the meta device."""
    book = json.loads((shared_dir / "reference" / "state_dicts.json").read_text())
    return {
        recipe: {name: torch.empty(shape, device="meta") for name, shape in book["layouts"][entry["layout"]].items()}
        for recipe, entry in book["recipes"]["maskformer"].items()
    }


def shapes(weights):
    return {name: tuple(value.shape) for name, value in weights.items()}


@pytest.mark.parametrize("recipe", PUBLISHED)
def test_published_sizes_have_the_published_tensors(published, recipe):
    """Their decoder, FPN and ResNet are of the published size where nothing is said."""
    num_labels, swin = PUBLISHED[recipe]
    backbone = transformers.ResNetConfig(out_features=STAGES) if swin is None else transformers.SwinConfig(**swin)
    with torch.device("meta"):
        theirs = transformers.MaskFormerForInstanceSegmentation(
            transformers.MaskFormerConfig(backbone_config=backbone, num_labels=num_labels)
        )
    ours = HF_MASKFORMER.to_ours(theirs.state_dict())
    assert shapes(ours) == shapes(published[recipe])
    written = HF_MASKFORMER.from_ours(published[recipe])
    assert shapes(written) == shapes(HF_MASKFORMER.from_ours(ours))
    assert len(written) == len(theirs.state_dict())


def test_models_without_a_counterpart_are_refused(published):
    """Encoder layers in the pixel decoder, DeepLab's stem, per-pixel baselines; all others are written."""
    refused = set()
    for recipe, weights in published.items():
        try:
            assert shapes(HF_MASKFORMER.to_ours(HF_MASKFORMER.from_ours(weights))) == shapes(weights)
        except UserError as error:
            assert "Hugging Face's MaskFormer cannot express this model" in str(error)
            refused.add(recipe)
    assert refused == {name for name in published if "R101c" in name or "per_pixel" in name or "panoptic_R" in name}


def test_half_a_model_is_not_written(published):
    head = {n: x for n, x in published["ade20k-150/maskformer_R50_bs16_160k.yaml"].items() if "backbone." not in n}
    with pytest.raises(UserError, match="it does not have all of its parts"):
        HF_MASKFORMER.from_ours(head)
