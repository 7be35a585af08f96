"""Tensor names of other programs -> ours."""

from __future__ import annotations

from collections.abc import Collection, Mapping

from torch import Tensor

from mask2former.checkpoint.formats import find_format
from mask2former.checkpoint.formats.rules import Weights

# what puts itself before every name: DistributedDataParallel, torch.compile
_WRAPPERS = ("module.", "_orig_mod.")


def without_wrapper(weights: Mapping[str, Tensor]) -> tuple[Weights, tuple[str, ...]]:
    """The tensors without the prefixes that all names have from a wrapper, and remarks for the report."""
    result, notes = dict(weights), ()
    while prefix := next((one for one in _WRAPPERS if result and all(name.startswith(one) for name in result)), None):
        result = {name.removeprefix(prefix): value for name, value in result.items()}
        notes += (f"prefix '{prefix}' of a wrapper removed",)
    return result, notes


def convert_names(weights: Mapping[str, Tensor], model_names: Collection[str]) -> tuple[Weights, tuple[str, ...]]:
    """Give tensors the names (and the layout) they have in our models, whatever program they come from.

    Args:
        weights: name in the file -> tensor.
        model_names: the model's own names. A file is left alone when none more of them would be found in it: a
            user's model may have names like another program's.

    Returns:
        The tensors under new names, and remarks for the report.
    """
    result, notes = without_wrapper(weights)
    found = find_format(result)
    if found is None:
        return result, notes
    converted = found.to_ours(result)
    if sum(name in model_names for name in converted) <= sum(name in model_names for name in result):
        return result, notes
    return converted, (*notes, f"names of {found.title} read as ours")
