"""Every key acts: what recipes set is read where things are built, and no default stands for nothing."""

import ast
import json
import re
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch

from mask2former.config import CfgNode, load_cfg
from mask2former.config.defaults import DEFAULTS, OPEN_SECTIONS
from mask2former.data.build import build_test_transform, build_train_mapper
from mask2former.modeling import build_model
from mask2former.solver import build_clipper, build_lr_scheduler, build_optimizer
from mask2former.structures import builtin_labels

# keys that wait for a later version: DeepLab's heads
WAITING = re.compile(r"MODEL\.SEM_SEG_HEAD\.(LOSS_TYPE|PROJECT_|ASPP_|USE_DEPTHWISE)")
# keys that published recipes set although the things they build do not ask for them -> why
UNASKED = {
    "MODEL.RESNETS.STEM_TYPE": "build_resnet_backbone has the basic stem; the deeplab builder asks",
    "MODEL.RESNETS.RES5_MULTI_GRID": "likewise",
    "MODEL.BACKBONE.FREEZE_AT": "ResNet and timm ask; Swin and DiNAT have no frozen stages, as published",
    "MODEL.SEM_SEG_HEAD.TRANSFORMER_ENC_LAYERS": "MaskFormer's Swin recipes: their pixel decoder has no encoder",
    "INPUT.CROP.TYPE": "the video recipes say how they would crop, but do not (CROP.ENABLED is False), as published",
    "INPUT.CROP.SIZE": "likewise",
    "MODEL.SWIN.PRETRAIN_IMG_SIZE": "for absolute position embeddings (APE) alone",
}
# backbones -> their section under MODEL; the sections of others come from the ResNet recipe that a recipe is based on
BACKBONE_SECTIONS = {
    "build_resnet_backbone": "RESNETS",
    "build_resnet_deeplab_backbone": "RESNETS",
    "D2SwinTransformer": "SWIN",
    "D2DiNAT": "DINAT",
}


def leaves(node: dict, path: tuple = ()) -> Iterator[str]:
    for key, value in node.items():
        if isinstance(value, dict) and value and (*path, key) not in OPEN_SECTIONS:
            yield from leaves(value, (*path, key))
        else:
            yield ".".join((*path, key))


# ---- by reading the code


class _Reads(ast.NodeVisitor):
    """Keys that a file reads: whole paths from `cfg`, and for names of unknown origin the words that end a path."""

    def __init__(self, tree: ast.AST):
        self.names: dict[str, set[tuple]] = {}
        self.found: set[tuple] = set()  # (True, *path) from the root, (False, *words) from somewhere
        for _ in range(2):  # names of names
            self.visit(tree)

    def visit_Assign(self, node: ast.Assign) -> None:
        pairs = [(node.targets[0], node.value)]
        if isinstance(node.targets[0], ast.Tuple) and isinstance(node.value, ast.Tuple):
            pairs = list(zip(node.targets[0].elts, node.value.elts))
        for target, value in pairs:
            if isinstance(target, ast.Name):
                self.names.setdefault(target.id, set()).update(c for c in self.chains(value) if len(c) > 1)
        self.generic_visit(node)

    def visit_Attribute(self, node: ast.Attribute) -> None:
        if isinstance(node.ctx, ast.Load):
            self.found.update(self.chains(node))
        self.generic_visit(node)

    def visit_Constant(self, node: ast.Constant) -> None:
        if isinstance(node.value, str) and re.fullmatch(r"[A-Z][A-Z0-9_]+", node.value):  # solver[key]
            self.found.add((False, node.value))

    def chains(self, node: ast.AST) -> set[tuple]:
        if isinstance(node, ast.Attribute) and re.fullmatch(r"[A-Z][A-Z0-9_]*", node.attr):
            return {(*chain, node.attr) for chain in self.chains(node.value)}
        if isinstance(node, ast.Name) and node.id in ("cfg", "theirs"):
            return {(True,)}
        if isinstance(node, ast.Name) and self.names.get(node.id):
            return self.names[node.id]
        return {(False,)}


def keys_read_in(paths: list[Path]) -> set[str]:
    """The leaf keys of DEFAULTS that the files read."""
    found = set().union(*(_Reads(ast.parse(path.read_text())).found for path in paths))
    whole = {".".join(chain[1:]) for chain in found if chain[0]}
    ends = {"." + ".".join(chain[1:]) for chain in found if not chain[0] and len(chain) > 1}
    return {key for key in leaves(DEFAULTS) if key in whole or any(f".{key}".endswith(end) for end in ends)}


@pytest.fixture(scope="module")
def doors(repo_dir) -> list[Path]:
    """The files that may open the config."""
    package = repo_dir / "mask2former"
    return [*package.rglob("build.py"), *(package / "engine").glob("*.py"), package / "inference" / "predictor.py"]


def test_every_default_is_read_somewhere(doors):
    unread = set(leaves(DEFAULTS)) - keys_read_in(doors)
    assert sorted(key for key in unread if not WAITING.match(key)) == []


def test_no_key_waits_that_is_read(doors):
    read = {key for key in keys_read_in(doors) if WAITING.match(key)}
    assert read == set()


# ---- by building the things of each recipe


class Recording(CfgNode):
    """A config that remembers which keys were asked for."""

    asked: set[str] = set()  # noqa: RUF012 - one for the whole tree, emptied for each recipe

    def __init__(self, init_dict=None, key_list=None, new_allowed=False):
        super().__init__(init_dict, key_list, new_allowed)
        self.__dict__["path"] = tuple(key_list or ())

    def _note(self, key):
        Recording.asked.add(".".join((*self.__dict__["path"], key)))

    def __getattr__(self, key):
        if key in self:
            self._note(key)
        return super().__getattr__(key)

    def __getitem__(self, key):
        self._note(key)
        return super().__getitem__(key)

    def get(self, key, default=None):
        self._note(key)
        return super().get(key, default)


def asked_by_building(recipe: Path) -> set[str]:
    cfg = load_cfg(recipe, ["MODEL.DEVICE", "meta"])
    recording = Recording(json.loads(json.dumps(cfg)))
    Recording.asked.clear()
    labels = builtin_labels(cfg.DATASETS.TRAIN[0])
    with torch.device("meta"):  # shapes without memory
        model = build_model(recording, labels)
    build_lr_scheduler(recording, build_optimizer(recording, model))
    build_clipper(recording)
    build_train_mapper(recording, labels)
    build_test_transform(recording)
    return set(Recording.asked)


def published_recipes(root: Path) -> list[Path]:
    folders = (
        *("ade20k", "cityscapes", "coco", "mapillary-vistas", "maskformer", "mmdet"),
        *("youtubevis_2019", "youtubevis_2021"),
    )
    paths = (path for folder in folders for path in (root / folder).rglob("*.yaml"))
    return sorted(path for path in paths if not path.name.startswith("Base"))


def test_what_a_recipe_sets_is_asked_for_when_it_is_built(repo_dir, doors):
    package = repo_dir / "mask2former"
    elsewhere = keys_read_in(
        [*(package / "engine").glob("*.py"), package / "evaluation" / "build.py", package / "data/datasets/build.py"]
    )
    elsewhere |= {key for key in keys_read_in([package / "data" / "build.py"]) if key.startswith("DATALOADER.")}
    recipes = published_recipes(repo_dir / "configs")
    assert len(recipes) == 111
    unasked: dict[str, list[str]] = {}
    for recipe in recipes:
        cfg, asked = load_cfg(recipe), asked_by_building(recipe)
        of_others = set(BACKBONE_SECTIONS.values()) - {BACKBONE_SECTIONS[cfg.MODEL.BACKBONE.NAME]}
        for key in leaves(DEFAULTS):
            idle = key.startswith("MODEL.") and key.split(".")[1] in of_others
            if cfg.given(key) and key not in asked and key not in elsewhere and not idle:
                unasked.setdefault(key, []).append(recipe.name)
    assert {key: names for key, names in unasked.items() if key not in UNASKED} == {}
    assert [key for key in UNASKED if key not in unasked] == []  # the list is no longer than it must be
