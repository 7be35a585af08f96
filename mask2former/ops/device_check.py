"""A compiled op is tried on a small input of its device before anything relies on it.

Kernels meet devices, drivers and compilers that nobody tested them with. Wrong numbers would go unnoticed for days.
"""

from __future__ import annotations

import contextlib
import importlib
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

import torch
import torch.nn.functional as F
from torch import Tensor

from mask2former.ops.reference import ms_deform_attn_reference, neighborhood_attention_2d_reference

_TOLERANCE = 1e-2  # of results around one; TF32 products are off by less, a wrong index by about one


def misfit(op: str, module: str, device: str) -> float | None:
    """The largest difference from the definition, of results and gradients; None where all are close.

    Args:
        op: one of backends.OPS.
        module: of mask2former.ops, with the op's two passes or functions.
        device: type of the device; of several GPUs, the current one is tried.
    """
    # a new thread would begin with the first GPU
    place = torch.cuda.device(torch.cuda.current_device()) if device == "cuda" else contextlib.nullcontext()
    with ThreadPoolExecutor(1) as thread:  # where no tracer watches, and no mode of the caller's is on
        return thread.submit(_misfit, op, module, device, place).result()


def _misfit(op: str, module: str, device: str, place: contextlib.AbstractContextManager) -> float | None:
    passes = importlib.import_module(f"mask2former.ops.{module}")
    generator = torch.Generator().manual_seed(0)

    def draw(*shape: int) -> Tensor:
        return torch.randn(*shape, generator=generator, dtype=torch.float32)

    with place:
        pairs = _CHECKS[op](passes, draw, device)
        worst = max(float((found.cpu() - wanted).abs().max()) for found, wanted in pairs)
    return None if worst <= _TOLERANCE else worst  # NaN is not close either


def _ms_deform_attn(passes, draw: Callable[..., Tensor], device: str) -> list[tuple[Tensor, Tensor]]:
    shapes = torch.tensor([[9, 7], [4, 5]])
    inputs = [draw(2, 83, 2, 32), draw(2, 11, 2, 2, 4, 2).sigmoid(), draw(2, 11, 2, 2, 4)]
    pairs = _compare(
        inputs,
        device,
        lambda value, *rest: ms_deform_attn_reference(value, shapes, *rest),
        lambda value, *rest: passes.ms_deform_attn_forward(value, shapes, *rest),
        lambda grad, _, value, *rest: passes.ms_deform_attn_backward(grad, value, shapes, *rest),
    )
    if device == "cpu":
        reference, offsets = draw(11, 2).sigmoid(), draw(2, 11, 2, 2, 4, 2)

        def in_steps(value: Tensor, offsets: Tensor, logits: Tensor) -> Tensor:
            locations = reference[:, None, None, None] + offsets / shapes.flip(1)[:, None]
            weights = logits.flatten(3).softmax(-1).view_as(logits)
            return ms_deform_attn_reference(value, shapes, locations, weights)

        pairs += _compare(
            [inputs[0], offsets, inputs[2]],
            device,
            in_steps,
            lambda value, *rest: passes.ms_deform_attn_raw(value, shapes, reference, *rest),
            lambda grad, _, value, *rest: passes.ms_deform_attn_raw_backward(grad, value, shapes, reference, *rest),
        )
    return pairs


def _neighborhood_attention_2d(passes, draw: Callable[..., Tensor], device: str) -> list[tuple[Tensor, Tensor]]:
    inputs, settings = [*(draw(1, 2, 13, 11, 32) for _ in range(3)), draw(2, 5, 5)], (3, 2, 0.2)
    return _compare(
        inputs,
        device,
        lambda *tensors: neighborhood_attention_2d_reference(*tensors, *settings),
        lambda *tensors: passes.neighborhood_attention_2d_forward(*tensors, *settings),
        lambda grad, results, *tensors: passes.neighborhood_attention_2d_backward(grad, *tensors, *results, *settings),
    )


def _masked_attention(passes, draw: Callable[..., Tensor], device: str) -> list[tuple[Tensor, Tensor]]:
    inputs, allowed = [draw(2, 11, 40), draw(2, 83, 40), draw(2, 83, 40)], draw(2, 11, 83) > 0

    def definition(*rows: Tensor) -> Tensor:
        q, k, v = (x.unflatten(2, (5, 8)).transpose(1, 2) for x in rows)
        return F.scaled_dot_product_attention(q, k, v, attn_mask=allowed[:, None]).transpose(1, 2).flatten(2)

    return _compare(
        inputs,
        device,
        definition,
        lambda *tensors: passes.masked_attention_forward(*tensors, allowed, 5),
        lambda grad, results, *tensors: passes.masked_attention_backward(grad, *tensors, allowed, *results),
    )


def _mask_results(functions, draw: Callable[..., Tensor], _: str) -> list[tuple[Tensor, Tensor]]:
    maps, scores = draw(11, 6, 9), draw(11).sigmoid()
    index = torch.tensor([[4, 1], [0, 3], [5, 5], [2, 4]])
    weight = torch.tensor([[0.25, 0.75]] * 4, dtype=torch.float32)  # whatever the caller's default
    logits = (maps[:, index] * weight[:, :, None]).sum(2)  # [11,4,9], rows resized
    logits = (logits[:, :, index] * weight).sum(3)  # [11,4,4]
    probability, inside = logits.sigmoid(), logits > 0
    owner = (probability * scores[:, None, None]).argmax(0)
    masks, axis = torch.empty_like(inside), (index, weight)
    states, full = functions.mask_owners(maps, scores, axis, axis)
    totals, areas, _ = functions.mask_binary(maps, axis, axis, masks)
    swap = (torch.arange(3, -1, -1)[:, None], weight.new_ones(4, 1))  # the first row last
    classes = draw(11, 7)
    sums = torch.einsum("qk,qhw->khw", classes, probability)
    return [
        (functions.mask_scores(classes, maps, (axis, axis), (swap, swap)), sums.flip(1, 2)),
        (states, owner * 2 + inside.gather(0, owner[None])[0]),
        (full, inside.flatten(1).sum(1)),
        (masks.int(), inside.int()),
        (totals, (probability * inside).flatten(1).sum(1)),
        (areas, inside.flatten(1).sum(1)),
    ]


def _winograd(passes, draw: Callable[..., Tensor], device: str) -> list[tuple[Tensor, Tensor]]:
    inputs = [draw(2, 32, 5, 4), draw(64, 32, 3, 3) / 17, draw(64)]
    return _compare(
        inputs,
        device,
        lambda x, weight, bias: F.conv2d(x, weight, bias, padding=1),
        passes.forward,
        lambda grad, _, x, weight, bias: (passes.input_grad(grad, weight), passes.weight_grad(grad, x)),
    )


def _mask_losses(functions, draw: Callable[..., Tensor], _: str) -> list[tuple[Tensor, Tensor]]:
    logits, labels, grad = draw(11, 37), draw(11, 37).sigmoid(), draw(11, 3)
    probability, softplus = logits.sigmoid(), F.softplus(logits)
    own = softplus - logits * labels, probability * labels, probability
    wanted = torch.stack([x.sum(1) for x in own], 1)
    slope = probability * (1 - probability)
    by_sample = probability - labels, slope * labels, slope  # gradients of the three sums
    wanted_grad = sum(weight[:, None] * each for weight, each in zip(grad.unbind(1), by_sample))
    pairs = torch.zeros(11, 24, dtype=torch.float32)  # whatever the caller's default
    functions.add_pair_sums(pairs, logits, labels, functions.CROSS_ENTROPY)
    totals = softplus.sum(1, keepdim=True), probability.sum(1, keepdim=True)
    return [
        (functions.mask_sums_forward(logits, labels), wanted),
        (functions.mask_sums_backward(grad, logits, labels), wanted_grad),
        (pairs, torch.cat([*totals, -logits @ labels.t(), probability @ labels.t()], 1)),
    ]


def _point_sample(functions, draw: Callable[..., Tensor], _: str) -> list[tuple[Tensor, Tensor]]:
    points = draw(3, 11, 2).sigmoid()
    maps = draw(3, 1, 6, 9).requires_grad_()

    def sample(of: Tensor, at: Tensor) -> Tensor:
        return F.grid_sample(of, 2 * at[:, None] - 1, align_corners=False)[:, :, 0]

    wanted = sample(maps, points)[:, 0]
    (wanted_grad,) = torch.autograd.grad(wanted.sum(), maps)
    grad = torch.ones_like(wanted)
    chosen = torch.empty_like(points)
    functions.least_certain(maps[:, 0], points, 11, chosen)
    found = functions.sample_maps_forward(maps[:, 0], points)
    pixels = draw(3, 6, 9, 8)
    masks = torch.tensor([[[1, 0, 1], [0, 1, 1]]]).expand(3, 2, 3)  # at (4, 3) of [6,9]
    places = torch.tensor([[0, 4, 3, 3, 2, 1]]).expand(3, 6)
    full = F.pad(masks.to(points.dtype), (4, 2, 3, 1))[:, None]
    return [
        (found, wanted.detach()),
        (functions.sample_maps_backward(grad, points, (6, 9)), wanted_grad[:, 0]),
        (functions.sample_pixels(pixels, points), sample(pixels.permute(0, 3, 1, 2), points).transpose(1, 2)),
        (functions.sample_mask(masks[0].flatten(), places, (6, 9), points), sample(full, points)[:, 0]),
        (chosen, points),
    ]


def _group_norm(functions, draw: Callable[..., Tensor], _: str) -> list[tuple[Tensor, Tensor]]:
    x, coarser = (draw(2, 6, *size).contiguous(memory_format=torch.channels_last) for size in ((9, 7), (4, 3)))
    leaves, grad = [x.requires_grad_(), draw(6).requires_grad_(), draw(6).requires_grad_()], draw(2, 6, 9, 7)
    plain = F.group_norm(x, 3, *leaves[1:])
    of_groups, out = functions.statistics(x, 3, 1e-5), torch.empty_like(x)
    pairs = []
    for relu in (False, True):
        wanted = plain.relu() if relu else plain
        found = functions.backward(grad, *leaves[:1], of_groups, *leaves[1:], relu=relu, out=torch.empty_like(x))
        pairs += zip(found, torch.autograd.grad(wanted, leaves, grad, retain_graph=True))
    summed = plain + F.interpolate(coarser, size=(9, 7), mode="bilinear", align_corners=False)
    pairs.append((functions.apply(x, of_groups, *leaves[1:], relu=True, coarser=None, out=out).clone(), plain.relu()))
    pairs.append((functions.apply(x, of_groups, *leaves[1:], relu=False, coarser=coarser, out=out), summed))
    return [(found.detach(), wanted.detach()) for found, wanted in pairs]


_CHECKS = {
    "ms_deform_attn": _ms_deform_attn,
    "neighborhood_attention_2d": _neighborhood_attention_2d,
    "mask_results": _mask_results,
    "winograd": _winograd,
    "mask_losses": _mask_losses,
    "point_sample": _point_sample,
    "masked_attention": _masked_attention,
    "group_norm": _group_norm,
}


def _compare(inputs: list[Tensor], device: str, definition: Callable, forward: Callable, backward: Callable) -> list:
    """(found on the device, wanted on the CPU) of the result and of each gradient; inputs are on the CPU.

    The definition is not run on GPUs: ``torch.use_deterministic_algorithms`` refuses some of its passes there.
    """
    leaves = [x.clone().requires_grad_() for x in inputs]
    wanted = definition(*leaves)
    grad = torch.ones_like(wanted).cumsum(-1) / wanted.shape[-1]
    wanted_grads = torch.autograd.grad(wanted, leaves, grad)
    inputs = [x.to(device) for x in inputs]
    results = forward(*inputs)
    found = results[0] if isinstance(results, tuple) else results
    return [(found, wanted.detach()), *zip(backward(grad.to(device), results, *inputs), wanted_grads)]
