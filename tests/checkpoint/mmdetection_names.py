"""The tensors of mmdetection's Mask2Former by name and shape, written down from its modules, not from our rules."""

# per release: the pixel decoder's attention; the decoder's attention to the image and to the queries; feed-forward
PARTS = {
    2: ("attentions.0", "attentions.0", "attentions.1", "ffns.0"),
    3: ("self_attn", "cross_attn", "self_attn", "ffn"),
}
C = 256  # channels


def linear(name, outputs, inputs):
    return {f"{name}.weight": (outputs, inputs), f"{name}.bias": (outputs,)}


def norm(name, channels):
    return {f"{name}.weight": (channels,), f"{name}.bias": (channels,)}


def batch_norm(name, channels):
    statistics = {f"{name}.running_mean": (channels,), f"{name}.running_var": (channels,)}
    return norm(name, channels) | statistics | {f"{name}.num_batches_tracked": ()}


def resnet(depths):
    tensors = {"conv1.weight": (64, 3, 7, 7)} | batch_norm("bn1", 64)
    inputs = 64
    for stage, depth in enumerate(depths):
        width = 64 * 2**stage
        for block in range(depth):
            name = f"layer{stage + 1}.{block}"
            for i, shape in enumerate([(width, inputs, 1, 1), (width, width, 3, 3), (4 * width, width, 1, 1)], 1):
                tensors |= {f"{name}.conv{i}.weight": shape} | batch_norm(f"{name}.bn{i}", shape[0])
            if block == 0:
                tensors[f"{name}.downsample.0.weight"] = (4 * width, inputs, 1, 1)
                tensors |= batch_norm(f"{name}.downsample.1", 4 * width)
            inputs = 4 * width
    return tensors, [256, 512, 1024, 2048]


def swin(channels, depths, heads, window):
    tensors = {"patch_embed.projection.weight": (channels, 3, 4, 4), "patch_embed.projection.bias": (channels,)}
    tensors |= norm("patch_embed.norm", channels)
    widths = [channels * 2**stage for stage in range(4)]
    for stage, width in enumerate(widths):
        for block in range(depths[stage]):
            name = f"stages.{stage}.blocks.{block}"
            tensors |= norm(f"{name}.norm1", width) | norm(f"{name}.norm2", width)
            tensors[f"{name}.attn.w_msa.relative_position_bias_table"] = ((2 * window - 1) ** 2, heads[stage])
            tensors[f"{name}.attn.w_msa.relative_position_index"] = (window**2, window**2)
            tensors |= linear(f"{name}.attn.w_msa.qkv", 3 * width, width) | linear(
                f"{name}.attn.w_msa.proj", width, width
            )
            tensors |= linear(f"{name}.ffn.layers.0.0", 4 * width, width) | linear(
                f"{name}.ffn.layers.1", width, 4 * width
            )
        if stage < 3:
            tensors |= norm(f"stages.{stage}.downsample.norm", 4 * width)
            tensors[f"stages.{stage}.downsample.reduction.weight"] = (2 * width, 4 * width)
        tensors |= norm(f"norm{stage}", width)
    return tensors, widths


def conv_module(name, outputs, inputs, edge, bias):
    tensors = {f"{name}.conv.weight": (outputs, inputs, edge, edge)} | norm(f"{name}.gn", outputs)
    return tensors | ({f"{name}.conv.bias": (outputs,)} if bias else {})


def pixel_decoder(release, widths):
    attention, _, _, ffn = PARTS[release]
    tensors = {"level_encoding.weight": (3, C), "mask_feature.weight": (C, C, 1, 1), "mask_feature.bias": (C,)}
    for i, width in enumerate(reversed(widths[1:])):  # input_convs go from low to high resolution
        tensors |= conv_module(f"input_convs.{i}", C, width, 1, bias=True)
    tensors |= conv_module("lateral_convs.0", C, widths[0], 1, bias=False)
    tensors |= conv_module("output_convs.0", C, C, 3, bias=False)
    for i in range(6):
        layer = f"encoder.layers.{i}"
        for name, outputs in (
            ("sampling_offsets", 192),
            ("attention_weights", 96),
            ("value_proj", C),
            ("output_proj", C),
        ):
            tensors |= linear(f"{layer}.{attention}.{name}", outputs, C)
        tensors |= linear(f"{layer}.{ffn}.layers.0.0", 1024, C) | linear(f"{layer}.{ffn}.layers.1", C, 1024)
        tensors |= norm(f"{layer}.norms.0", C) | norm(f"{layer}.norms.1", C)
    return tensors


def head(release, widths, classes, queries):
    _, cross, own, ffn = PARTS[release]
    tensors = {f"pixel_decoder.{name}": shape for name, shape in pixel_decoder(release, widths).items()}
    for i in range(9):
        layer = f"transformer_decoder.layers.{i}"
        for attention in (cross, own):
            tensors[f"{layer}.{attention}.attn.in_proj_weight"] = (3 * C, C)
            tensors[f"{layer}.{attention}.attn.in_proj_bias"] = (3 * C,)
            tensors |= linear(f"{layer}.{attention}.attn.out_proj", C, C)
        tensors |= linear(f"{layer}.{ffn}.layers.0.0", 2048, C) | linear(f"{layer}.{ffn}.layers.1", C, 2048)
        for n in range(3):
            tensors |= norm(f"{layer}.norms.{n}", C)
    tensors |= norm("transformer_decoder.post_norm", C) | linear("cls_embed", classes + 1, C)
    tensors |= {"query_embed.weight": (queries, C), "query_feat.weight": (queries, C), "level_embed.weight": (3, C)}
    for n in (0, 2, 4):
        tensors |= linear(f"mask_embed.{n}", C, C)
    return tensors


BACKBONES = {
    "r50": lambda: resnet((3, 4, 6, 3)),
    "r101": lambda: resnet((3, 4, 23, 3)),
    "swin-t": lambda: swin(96, (2, 2, 6, 2), (3, 6, 12, 24), 7),
    "swin-s": lambda: swin(96, (2, 2, 18, 2), (3, 6, 12, 24), 7),
    "swin-b": lambda: swin(128, (2, 2, 18, 2), (4, 8, 16, 32), 12),
    "swin-l": lambda: swin(192, (2, 2, 18, 2), (6, 12, 24, 48), 12),
}


def tensors_of(backbone, release=3, classes=133, queries=100):
    """{name: shape} of a checkpoint's `state_dict`."""
    inside, widths = BACKBONES[backbone]()
    whole = {f"backbone.{name}": shape for name, shape in inside.items()}
    return whole | {f"panoptic_head.{name}": shape for name, shape in head(release, widths, classes, queries).items()}
