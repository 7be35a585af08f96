"""MODEL_ZOO.md, written from the table of published checkpoints."""

from __future__ import annotations

from itertools import groupby

from mask2former.checkpoint.zoo import ZooModel, zoo

HEAD = """# Model zoo

<!-- Written by `python tools/zoo.py page > MODEL_ZOO.md` from mask2former/checkpoint/zoo.json: change that instead. -->

Checkpoints that the authors of Mask2Former, MaskFormer, DiNAT and mmdetection published, with their published figures.
They were not measured with this project. A name in the first column works wherever weights are named:

```bash
python train_net.py --config-file configs/coco/panoptic-segmentation/maskformer2_R50_bs16_50ep.yaml --eval-only \\
    MODEL.WEIGHTS zoo://coco/panoptic/R50
```

In a program, `Predictor("zoo://coco/panoptic/R50")` finds the recipe, too, as does `demo/demo.py` without a recipe;
both need `configs/` of the repository.

The file is downloaded once, into `~/.torch/iopath_cache` (or the folder in `FVCORE_CACHE`), and held against the digits
of a hash in its name. DiNAT's files have none in theirs and are not checked. Without a network the message says where
to put a file that was downloaded elsewhere. `python tools/zoo.py list`, `show` and `download` do the same from the
command line.

Metrics are in percent, "ms+flip" with several sizes and mirrored images at test time, memory is that of
training; schedules are epochs, or iterations (k: thousands). "IN21k": the backbone comes from ImageNet-21k, otherwise
from ImageNet-1k; that of DiNAT-L from ImageNet-21k. The published tables call two backbones R50 whose recipes say
otherwise; here stands what the recipes say (ade20k/instance/Swin-L-IN21k, ade20k/panoptic/R101-maskformer). A dash: not
published, or no recipe for it here.
"""


def write_page() -> str:
    """The whole page, ending with a line break."""
    tables = groupby(zoo().values(), key=lambda model: model.table)
    return "\n".join([HEAD, *(f"## {title}\n\n{_table(list(models))}\n" for title, models in tables)]).rstrip() + "\n"


def _table(models: list[ZooModel]) -> str:
    metrics = list(models[0].figures)
    several_kinds = len({model.model for model in models}) > 1
    head = ["name", *(["model"] if several_kinds else []), "backbone", "schedule", *metrics, "recipe", "file"]
    rules = ["---:" if column in metrics else "---" for column in head]
    return "\n".join(f"| {' | '.join(cells)} |" for cells in [head, rules, *(_row(m, several_kinds) for m in models)])


def _row(model: ZooModel, with_kind: bool) -> list[str]:
    recipe = "-" if model.recipe is None else f"[recipe]({model.recipe})"
    kind = [model.model] if with_kind else []
    figures = ["-" if value is None else str(value) for value in model.figures.values()]
    return [f"`{model.name}`", *kind, model.backbone, model.schedule, *figures, recipe, f"[file]({model.address})"]
