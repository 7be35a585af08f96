"""What the formats of backbones alone share: files of classifiers, whose tensors become our `backbone.*`."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

from torch import Tensor

from mask2former.checkpoint.formats.format import Format
from mask2former.checkpoint.formats.rules import Rule, Weights, to_ours, to_theirs
from mask2former.utils.errors import UserError


def backbone_format(
    name: str,
    title: str,
    recognises: Callable[[Mapping[str, Tensor]], bool],
    rules: Sequence[Rule],
    *,
    complete: Callable[[Weights], Weights] = lambda weights: weights,
    left_out: Sequence[str] = (),
    writes: bool = True,
) -> Format:
    """A format of files that hold a backbone, with or without its classifier.

    On the way out only the backbone is taken, without what such a file has no place for.

    Args:
        name, title, recognises: as in `Format`.
        rules: ours on the left, all of which begin with `backbone.`.
        complete: from what the rules gave to all that our models have, without what is no weight.
        left_out: ends of names, ours, that such files do not have.
        writes: whether there is a way out.
    """

    def read(weights: Mapping[str, Tensor]) -> Weights:
        return complete(to_ours(weights, rules))

    def write(weights: Mapping[str, Tensor]) -> Weights:
        backbone = {one: value for one, value in weights.items() if one.startswith("backbone.")}
        backbone = {one: value for one, value in backbone.items() if not one.endswith(tuple(left_out))}
        theirs = to_theirs(backbone, rules)
        strange = [one for one in theirs if one.startswith("backbone.")]
        if strange or not recognises(theirs):
            found = "it has not all that belongs to one"
            if strange:
                found = f"{len(strange)} of its {len(backbone)} tensors, such as {strange[0]}, have no name there"
            raise UserError(
                f"{title} cannot express this backbone: {found}. Choose the format of its architecture with --to, or "
                "--to official."
            )
        return theirs

    return Format(name, title, False, recognises, read, write if writes else None)
