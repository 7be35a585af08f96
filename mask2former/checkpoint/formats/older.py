"""Names of checkpoints that the authors of MaskFormer and Mask2Former wrote before they released their code.

The parts of the pixel decoder lay in the head itself, and `query_feat` was called `static_query`; the published code
still reads both.
"""

from __future__ import annotations

from collections.abc import Mapping

from torch import Tensor

from mask2former.checkpoint.formats.format import Format
from mask2former.checkpoint.formats.rules import Weights, same, to_ours

_HEAD = "sem_seg_head."
_QUERIES = same("sem_seg_head.predictor.query_feat.", "sem_seg_head.predictor.static_query.")
# the first that knows a name is taken: what has its place in the head today keeps it
_PARTS = [
    same("sem_seg_head.predictor.", "sem_seg_head.predictor."),
    same("sem_seg_head.pixel_decoder.", "sem_seg_head."),
]


def _has_bare_pixel_decoder(weights: Mapping[str, Tensor]) -> bool:
    """Nothing is called `sem_seg_head.pixel_decoder.`, and the head has parts beside its predictor."""
    parts = {name.split(".")[1] for name in weights if name.startswith(_HEAD)}
    return "pixel_decoder" not in parts and bool(parts - {"predictor"})


def _has_static_queries(weights: Mapping[str, Tensor]) -> bool:
    return any(name.startswith("sem_seg_head.predictor.static_query.") for name in weights)


def _to_ours(weights: Mapping[str, Tensor]) -> Weights:
    return to_ours(weights, [_QUERIES, *(_PARTS if _has_bare_pixel_decoder(weights) else ())])


OLDER = Format(
    name="older",
    title="an older release of MaskFormer or Mask2Former",
    whole=True,
    recognises=lambda weights: _has_static_queries(weights) or _has_bare_pixel_decoder(weights),
    to_ours=_to_ours,
)
