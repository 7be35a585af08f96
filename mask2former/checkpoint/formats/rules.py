"""Two ways of naming the same tensors, as a list of rules that reads in both directions.

A template is a tensor's name, or the beginning of one that ends in a dot, with places for what differs:
`layers.{i}.norm.`. A place matches digits; one that is written in capitals, `{P}`, matches `weight` or `bias`.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

Weights = dict[str, Tensor]
_PLACE = re.compile(r"\\\{(\w+)\\\}")


@dataclass(frozen=True)
class Rule:
    """Tensors of ours and what holds the same in another program.

    ours, theirs  templates with the same places; where one side has several tensors for one of the other side, as
                  query, key and value for one projection, it names all of them
    to_ours       their tensors, in the order of `theirs` -> ours, in the order of `ours`; None: the same tensors
    to_theirs     the way back; None with `to_ours`: the same tensors
    """

    ours: tuple[str, ...]
    theirs: tuple[str, ...]
    to_ours: Callable[..., Sequence[Tensor]] | None = None
    to_theirs: Callable[..., Sequence[Tensor]] | None = None

    def reversed(self) -> Rule:
        return Rule(self.theirs, self.ours, self.to_theirs, self.to_ours)


def same(ours: str, theirs: str) -> Rule:
    """One tensor, or all below one module, under another name."""
    return Rule((ours,), (theirs,))


def joined(ours: str, theirs: Sequence[str]) -> Rule:
    """One tensor of ours is several of theirs of equal size, one after the other along the first axis."""
    count = len(theirs)
    return Rule((ours,), tuple(theirs), lambda *parts: [torch.cat(parts)], lambda whole: whole.chunk(count))


def changed(ours: str, theirs: str, change: Callable[[Tensor], Tensor], back: Callable[[Tensor], Tensor]) -> Rule:
    """One tensor whose values are laid out in another way: `change` makes ours of theirs."""
    return Rule((ours,), (theirs,), lambda x: [change(x)], lambda x: [back(x)])


def to_ours(weights: Mapping[str, Tensor], rules: Iterable[Rule]) -> Weights:
    """Tensors of another program under our names; those that no rule knows keep theirs."""
    return _apply(weights, [rule.reversed() for rule in rules])


def to_theirs(weights: Mapping[str, Tensor], rules: Iterable[Rule]) -> Weights:
    """The way back; the first rule that knows a name is taken."""
    return _apply(weights, list(rules))


def _apply(weights: Mapping[str, Tensor], rules: Sequence[Rule]) -> Weights:
    """From the names and tensors of the rules' `ours` to those of their `theirs`."""
    patterns = [(_pattern(template), rule) for rule in rules for template in rule.ours]
    result: Weights = {}
    done: set[str] = set()
    for name in weights:
        if name in done:
            continue
        found = next(((match, rule) for pattern, rule in patterns if (match := pattern.match(name))), None)
        if found is None:
            result[name] = weights[name]
            continue
        match, rule = found
        rest = name[match.end() :]
        sources = [_fill(other, match) + rest for other in rule.ours]
        if any(source not in weights for source in sources):
            result[name] = weights[name]  # one of several parts is missing: nothing can be made of the others
            continue
        tensors = [weights[source] for source in sources]
        if rule.to_theirs is not None:
            tensors = rule.to_theirs(*tensors)
        result.update({_fill(other, match) + rest: x for other, x in zip(rule.theirs, tensors, strict=True)})
        done.update(sources)
    return result


def _pattern(template: str) -> re.Pattern[str]:
    """Matches whole names, or beginnings where the template ends in a dot."""
    text = _PLACE.sub(lambda m: rf"(?P<{m[1]}>{'weight|bias' if m[1].isupper() else '[0-9]+'})", re.escape(template))
    return re.compile(text if template.endswith(".") else text + r"\Z")


def _fill(template: str, match: re.Match[str]) -> str:
    return template.format(**match.groupdict())
