"""Multi-scale deformable attention (Zhu et al., Deformable DETR, ICLR 2021, eq. 3)."""

from __future__ import annotations

from torch import Tensor

from mask2former.ops.reference import ms_deform_attn_reference

# B batch, S pixels of all levels, H heads, D channels per head, Q queries, L levels, P points


def ms_deform_attn(
    value: Tensor, spatial_shapes: Tensor, sampling_locations: Tensor, attention_weights: Tensor
) -> Tensor:
    """Weighted sum of values sampled bilinearly around each query, on every level.

    value               [B,S,H,D], floating; the levels' pixels in row order, one level after the other
    spatial_shapes      [L,2] int64, (h, w) of each level; sum of h*w is S
    sampling_locations  [B,Q,H,L,P,2], (x, y) in [0,1] over the level; outside samples zero
    attention_weights   [B,Q,H,L,P]
    returns             [B,Q,H*D]

    Raises ValueError when the shapes do not fit together.
    """
    _check(value, spatial_shapes, sampling_locations, attention_weights)
    return ms_deform_attn_reference(value, spatial_shapes, sampling_locations, attention_weights)


def _check(value: Tensor, spatial_shapes: Tensor, sampling_locations: Tensor, attention_weights: Tensor) -> None:
    if value.dim() != 4:
        raise ValueError(f"value must be [B,S,H,D], got shape {tuple(value.shape)}")
    batch, _, heads, _ = value.shape
    if spatial_shapes.dim() != 2 or spatial_shapes.shape[1] != 2:
        raise ValueError(f"spatial_shapes must be [L,2], got shape {tuple(spatial_shapes.shape)}")
    levels = spatial_shapes.shape[0]
    location_shape = sampling_locations.shape
    if len(location_shape) != 6 or (*location_shape[:1], *location_shape[2:4], location_shape[5]) != (
        batch,
        heads,
        levels,
        2,
    ):
        raise ValueError(
            f"sampling_locations must be [B={batch},Q,H={heads},L={levels},P,2], got shape {tuple(location_shape)}"
        )
    if attention_weights.shape != location_shape[:-1]:
        raise ValueError(
            f"attention_weights must be {tuple(location_shape[:-1])} as sampling_locations, "
            f"got shape {tuple(attention_weights.shape)}"
        )
    pixels = int(spatial_shapes.prod(1).sum())
    if pixels != value.shape[1]:
        raise ValueError(f"spatial_shapes cover {pixels} pixels, but value has S={value.shape[1]}")
