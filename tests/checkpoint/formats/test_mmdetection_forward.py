"""mmdetection's head, written down from its forward passes over its own names, predicts what ours does."""

import pytest
import torch
import torch.nn.functional as F
from mmdetection_names import PARTS, head
from torch import nn

from mask2former.checkpoint.formats.mmdetection import MMDETECTION_2, MMDETECTION_3
from mask2former.config import load_cfg
from mask2former.modeling import build_model
from mask2former.modeling.layers.position_encoding import sine_position_encoding
from mask2former.ops import ms_deform_attn

WIDTHS, SIZES = [256, 512, 1024, 2048], [(16, 24), (8, 12), (4, 6), (2, 3)]  # strides 4 to 32
HEADS, POINTS = 8, 4


class TheirHead:
    """Reads tensors by their names; maps are [N,C,h,w], sequences [N,S,C]."""

    def __init__(self, weights, release):
        self.w = weights
        self.encoder_attention, self.cross, self.own, self.ffn = PARTS[release]

    def linear(self, name, x):
        return F.linear(x, self.w[f"{name}.weight"], self.w[f"{name}.bias"])

    def norm(self, name, x):
        return F.layer_norm(x, x.shape[-1:], self.w[f"{name}.weight"], self.w[f"{name}.bias"])

    def conv(self, name, x, padding=0):
        x = F.conv2d(x, self.w[f"{name}.conv.weight"], self.w.get(f"{name}.conv.bias"), padding=padding)
        return F.group_norm(x, 32, self.w[f"{name}.gn.weight"], self.w[f"{name}.gn.bias"])

    def feed_forward(self, name, x):
        return x + self.linear(f"{name}.layers.1", self.linear(f"{name}.layers.0.0", x).relu())

    def attend(self, name, query, key, query_pos, key_pos, mask=None):
        module = nn.MultiheadAttention(256, HEADS, batch_first=True, dtype=query.dtype)
        module.load_state_dict({n: self.w[f"{name}.attn.{n}"] for n in module.state_dict()})
        return query + module(query + query_pos, key + key_pos, key, attn_mask=mask, need_weights=False)[0]

    def deform(self, name, x, position, reference, shapes):
        count = (*x.shape[:2], HEADS, len(shapes), POINTS)
        offsets = self.linear(f"{name}.sampling_offsets", x + position).view(*count, 2)
        attention = self.linear(f"{name}.attention_weights", x + position).view(*count[:3], -1).softmax(-1).view(count)
        places = reference[:, None, None, None] + offsets / shapes.flip(1)[:, None]
        value = self.linear(f"{name}.value_proj", x).unflatten(-1, (HEADS, -1))
        return x + self.linear(f"{name}.output_proj", ms_deform_attn(value, shapes, places, attention))

    def pixel_decoder(self, maps):
        prefix = "panoptic_head.pixel_decoder"
        x, position, reference = [], [], []
        for i, level in enumerate(reversed(maps[1:])):  # the coarsest first
            h, w = level.shape[-2:]
            x.append(self.conv(f"{prefix}.input_convs.{i}", level).flatten(2).transpose(1, 2))
            position.append(encoding(h, w) + self.w[f"{prefix}.level_encoding.weight"][i])
            y, x_ = torch.meshgrid(torch.arange(h) + 0.5, torch.arange(w) + 0.5, indexing="ij")
            reference.append(torch.stack([x_ / w, y / h], -1).flatten(0, 1).double())
        shapes = torch.tensor([m.shape[-2:] for m in reversed(maps[1:])])
        x, position, reference = torch.cat(x, 1), torch.cat(position), torch.cat(reference)
        for i in range(6):
            layer = f"{prefix}.encoder.layers.{i}"
            x = self.norm(
                f"{layer}.norms.0", self.deform(f"{layer}.{self.encoder_attention}", x, position, reference, shapes)
            )
            x = self.norm(f"{layer}.norms.1", self.feed_forward(f"{layer}.{self.ffn}", x))
        parts = x.transpose(1, 2).split(shapes.prod(1).tolist(), -1)
        memory = [part.unflatten(2, shape) for part, shape in zip(parts, shapes.tolist(), strict=True)]
        finest = self.conv(f"{prefix}.lateral_convs.0", maps[0])
        finest = finest + F.interpolate(memory[-1], size=finest.shape[-2:], mode="bilinear")
        finest = self.conv(f"{prefix}.output_convs.0", finest, padding=1).relu()
        return F.conv2d(finest, self.w[f"{prefix}.mask_feature.weight"], self.w[f"{prefix}.mask_feature.bias"]), memory

    def predict(self, queries, features, size):
        x = self.norm("panoptic_head.transformer_decoder.post_norm", queries)
        classes, embed = self.linear("panoptic_head.cls_embed", x), x
        for n in (0, 2, 4):
            embed = self.linear(f"panoptic_head.mask_embed.{n}", embed.relu() if n else embed)
        masks = torch.einsum("bqc,bchw->bqhw", embed, features)
        hidden = F.interpolate(masks, size=size, mode="bilinear").flatten(2).sigmoid() < 0.5  # [N,Q,S]
        hidden = hidden & ~hidden.all(2, keepdim=True)
        return classes, masks, hidden.repeat_interleave(HEADS, 0)

    def __call__(self, maps):
        features, memory = self.pixel_decoder(maps)
        count = len(features)
        queries, query_pos = (
            self.w[f"panoptic_head.{n}.weight"].expand(count, -1, -1) for n in ("query_feat", "query_embed")
        )
        found = [self.predict(queries, features, memory[0].shape[-2:])]
        for i in range(9):
            level, layer = memory[i % 3], f"panoptic_head.transformer_decoder.layers.{i}"
            seen = level.flatten(2).transpose(1, 2) + self.w["panoptic_head.level_embed.weight"][i % 3]
            queries = self.attend(
                f"{layer}.{self.cross}", queries, seen, query_pos, encoding(*level.shape[-2:]), found[-1][2]
            )
            queries = self.norm(f"{layer}.norms.0", queries)
            queries = self.attend(f"{layer}.{self.own}", queries, queries, query_pos, query_pos)
            queries = self.norm(f"{layer}.norms.1", queries)
            queries = self.norm(f"{layer}.norms.2", self.feed_forward(f"{layer}.{self.ffn}", queries))
            found.append(self.predict(queries, features, memory[(i + 1) % 3].shape[-2:]))
        return found


def encoding(h, w):  # [S,C]
    encoded = sine_position_encoding((1, h, w), 256, temporal=False, device=torch.device("cpu"), dtype=torch.float64)
    return encoded.flatten(1).T


@pytest.mark.parametrize(("release", "form"), [(2, MMDETECTION_2), (3, MMDETECTION_3)])
def test_predictions_of_every_layer(release, form, repo_dir):
    recipe = repo_dir / "configs/mmdet/mask2former_r50_8xb2-lsj-50e_coco-panoptic.yaml"
    cfg = load_cfg(recipe, ["MODEL.DEVICE", "cpu", "MODEL.MASK_FORMER.NUM_OBJECT_QUERIES", 9])
    ours = build_model(cfg).sem_seg_head.double()
    shapes = head(release, WIDTHS, classes=133, queries=9)
    weights = {f"panoptic_head.{n}": torch.randn(shape, dtype=torch.float64) * 0.1 for n, shape in shapes.items()}
    converted = {n.removeprefix("sem_seg_head."): x for n, x in form.to_ours(weights).items() if n.startswith("sem_")}
    ours.load_state_dict(converted)
    maps = [torch.randn(2, c, *size, dtype=torch.float64) for c, size in zip(WIDTHS, SIZES, strict=True)]
    with torch.no_grad():
        theirs = TheirHead(weights, release)(maps)
        found = ours({f"res{i}": x for i, x in enumerate(maps, 2)}, frames=1, every_layer=True)
    torch.testing.assert_close(found.class_logits, torch.stack([classes for classes, _, _ in theirs]))
    torch.testing.assert_close(found.masks()[:, :, :, 0], torch.stack([masks for _, masks, _ in theirs]))
    assert found.class_logits.std() > 0.1 and found.masks().std() > 0.01
