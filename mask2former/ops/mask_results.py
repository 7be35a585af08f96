"""Results from mask logits on the CPU, by the compiled library; see ``csrc/mask_results.cpp`` and ``mask_scores.cpp``.

What they compute is defined by plain torch in ``modeling/full_size.py``, which is also what runs elsewhere.
"""

from __future__ import annotations

import torch
from torch import Tensor

from mask2former.ops.backends import backend
from mask2former.ops.cpp import run
from mask2former.utils.memory import empty_large

# Q queries, K classes, h w map size, H W wanted size, T taps

# index int64 and weight, [H,T] or [W,T], on the host: out[i] = sum over t of weight[i,t] * given[index[i,t]]
Axis = tuple[Tensor, Tensor]


def served(mask_logits: Tensor, *others: Tensor) -> bool:
    """Whether the functions below take these [Q,h,w]: some, on a CPU, and no gradient is asked of them or others."""
    if mask_logits.device.type != "cpu" or mask_logits.numel() == 0:
        return False
    if any(x.requires_grad for x in (mask_logits, *others)):
        return False
    return backend("mask_results", "cpu") == "cpp"


def mask_owners(mask_logits: Tensor, scores: Tensor, rows: Axis, columns: Axis) -> tuple[Tensor, Tensor]:
    """Which query has the highest score times mask probability, at each pixel of the wanted size.

    Args:
        mask_logits: [Q,h,w]; resized to [Q,H,W] by rows and columns.
        scores: [Q], not negative.

    Returns:
        int64 [H,W], twice the query's number (the first's, of equals), plus 1 where its logit is not negative; and
        int64 [Q], for each query how many logits are not negative. A NaN never wins: where all
        are, the first query has the pixel.
    """
    arguments, sizes = _arguments(mask_logits, rows, columns)
    _on_host({"scores": scores})
    states = torch.empty(sizes[3:5], dtype=torch.int64, device="cpu")
    full = torch.empty(len(mask_logits), dtype=torch.int64, device="cpu")
    _run("mask_owners", *arguments, scores.to(arguments[0].dtype).contiguous(), states, full, *sizes)
    return states, full


def mask_binary(mask_logits: Tensor, rows: Axis, columns: Axis, masks: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Fills masks [Q,H,W] bool: where the resized logits [Q,h,w] are positive.

    Returns:
        float64 [Q], the sum of probabilities inside each; int64 [Q], its pixels; int64 [Q,4], the box around it
        (x0, y0, x1, y1), as :func:`mask2former.structures.masks_to_boxes` has it.
    """
    arguments, sizes = _arguments(mask_logits, rows, columns)
    _on_host({"masks": masks})
    if masks.shape != (len(mask_logits), *sizes[3:5]) or masks.dtype != torch.bool or not masks.is_contiguous():
        raise ValueError(f"masks must be bool {(len(mask_logits), *sizes[3:5])} and contiguous, got {masks.shape}")
    totals = torch.empty(len(mask_logits), dtype=torch.float64, device="cpu")
    areas = torch.empty(len(mask_logits), dtype=torch.int64, device="cpu")
    boxes = torch.empty(len(mask_logits), 4, dtype=torch.int64, device="cpu")
    _run("mask_binary", *arguments, masks, totals, areas, boxes, *sizes)
    return totals, areas, boxes


def mask_scores(
    probability: Tensor, mask_logits: Tensor, to_image: tuple[Axis, Axis], to_output: tuple[Axis, Axis]
) -> Tensor:
    """Sum over the queries of class probability [Q,K] times mask probability.

    Args:
        mask_logits: [Q,h,w]; resized by to_image, and the probabilities that they are then by to_output.

    Returns:
        [K,H,W] in float64 where mask_logits are, else float32.
    """
    arguments, sizes = _arguments(mask_logits, *to_image)
    _on_host({"probability": probability})
    if probability.dim() != 2 or len(probability) != len(mask_logits):
        raise ValueError(f"probability must be [Q={len(mask_logits)},K], got shape {tuple(probability.shape)}")
    last_taps, last_sizes = _taps(*to_output, arguments[0].dtype)
    classes = probability.shape[1]
    out = empty_large((classes, *last_sizes[:2]), arguments[0].dtype, mask_logits.device)
    weights = probability.detach().to(out.dtype).contiguous()
    _run("mask_scores", *arguments, *last_taps, weights, out, *sizes, *last_sizes, classes)
    return out


def _arguments(mask_logits: Tensor, rows: Axis, columns: Axis) -> tuple[list[Tensor], tuple[int, ...]]:
    """Tensors as C++ reads them, float64 where logits are, else float32; and Q, h, w, H, W and both numbers of taps."""
    _on_host({"mask_logits": mask_logits})
    dtype = torch.promote_types(mask_logits.dtype, torch.float32)
    taps, sizes = _taps(rows, columns, dtype)
    return [mask_logits.detach().to(dtype).contiguous(), *taps], (*mask_logits.shape, *sizes)


def _taps(rows: Axis, columns: Axis, dtype: torch.dtype) -> tuple[list[Tensor], tuple[int, ...]]:
    """Tensors as C++ reads them; and H, W and both numbers of taps."""
    _on_host(dict(zip(("rows' index", "rows' weight", "columns' index", "columns' weight"), (*rows, *columns))))
    tensors = []
    for index, weight in (rows, columns):
        tensors += [index.contiguous(), weight.to(dtype).contiguous()]
    return tensors, (len(rows[0]), len(columns[0]), rows[0].shape[1], columns[0].shape[1])


def _on_host(tensors: dict[str, Tensor]) -> None:
    """Raises ValueError where C++ would be given an address of another device."""
    for name, tensor in tensors.items():
        if tensor.device.type != "cpu":
            raise ValueError(f"{name} must be on the CPU, got {tensor.device}")


def _run(function: str, *arguments: Tensor | int) -> None:
    run(function, arguments[0].dtype, *arguments)
