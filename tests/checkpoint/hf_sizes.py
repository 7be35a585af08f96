"""One small model for the tests of Hugging Face's Mask2Former and MaskFormer: keys of ours, their configurations."""

import pytest
import torch

from mask2former.config import load_cfg
from mask2former.modeling import build_model
from mask2former.structures import LabelSet

transformers = pytest.importorskip("transformers")

LABELS = LabelSet(("cat", "dog", "sky", "road"), thing_ids=(0, 1))
STAGES = ["stage1", "stage2", "stage3", "stage4"]
# what of a recipe's backbone is made smaller -> theirs of the same sizes
BACKBONES = {
    "swin": (
        {"SWIN.EMBED_DIM": 24, "SWIN.DEPTHS": [1, 2, 2, 1], "SWIN.NUM_HEADS": [1, 2, 4, 8], "SWIN.WINDOW_SIZE": 4},
        lambda: transformers.SwinConfig(
            embed_dim=24, depths=[1, 2, 2, 1], num_heads=[1, 2, 4, 8], window_size=4, out_features=STAGES
        ),
    ),
    "resnet": (
        {"RESNETS.STEM_OUT_CHANNELS": 8, "RESNETS.RES2_OUT_CHANNELS": 16, "RESNETS.WIDTH_PER_GROUP": 4},
        lambda: transformers.ResNetConfig(embedding_size=8, hidden_sizes=[16, 32, 64, 128], out_features=STAGES),
    ),
}
HEAD = {
    "DEVICE": "cpu",
    "SEM_SEG_HEAD.NUM_CLASSES": 4,
    "SEM_SEG_HEAD.CONVS_DIM": 32,
    "SEM_SEG_HEAD.MASK_DIM": 64,
    "MASK_FORMER.HIDDEN_DIM": 64,
    "MASK_FORMER.DIM_FEEDFORWARD": 48,
    "MASK_FORMER.NUM_OBJECT_QUERIES": 5,
}


def build_small(recipe, kind, more):
    """A model of ours; `more` keys below MODEL, beside those of the head and of the backbone `kind`."""
    keys = {f"MODEL.{key}": value for key, value in (HEAD | BACKBONES[kind][0] | more).items()}
    torch.manual_seed(0)
    return randomize(build_model(load_cfg(str(recipe), [part for pair in keys.items() for part in pair]), LABELS))


def randomize(model):
    """Parameters and statistics that differ from their first values and from each other."""
    generator = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for name, value in model.state_dict().items():
            if name.endswith("running_var"):
                value.uniform_(0.5, 2, generator=generator)
            elif value.is_floating_point() and (value.ndim == 1 or "bias_table" in name or "sampling" in name):
                value.add_(torch.randn(value.shape, generator=generator), alpha=0.3)
    return model.eval()


def load_exactly(model, weights):
    """Nothing may be missing, left over or of another shape."""
    model.load_state_dict({name: value.clone() for name, value in weights.items()}, strict=True)
