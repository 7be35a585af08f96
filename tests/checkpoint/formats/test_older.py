"""Names from before the release, over every published layout."""

import json

import pytest
import torch

from mask2former.checkpoint.convert import convert_names
from mask2former.checkpoint.formats import find_format
from mask2former.checkpoint.formats.older import OLDER


@pytest.fixture(scope="module")
def layouts(shared_dir):
    return json.loads((shared_dir / "reference" / "state_dicts.json").read_text())["layouts"].values()


def named(names):
    return {name: torch.full((), float(i)) for i, name in enumerate(names)}


@pytest.mark.parametrize(
    "renames",
    [
        {"sem_seg_head.pixel_decoder.": "sem_seg_head."},
        {"query_feat": "static_query"},
        {"sem_seg_head.pixel_decoder.": "sem_seg_head.", "query_feat": "static_query"},
    ],
    ids=["head", "queries", "both"],
)
def test_every_published_model_is_read(renames, layouts):
    for layout in layouts:
        ours = named(layout)
        older = dict(ours)
        for new, old in renames.items():
            older = {name.replace(new, old): value for name, value in older.items()}
        if older == ours:  # MaskFormer has no `query_feat`
            continue
        assert find_format(older) is OLDER
        converted, notes = convert_names(older, ours.keys())
        assert converted == ours and "older release" in notes[0]


def test_today_s_names_are_nobody_else_s(layouts):
    assert all(find_format(named(layout)) is None for layout in layouts)


def test_a_head_of_a_user_keeps_its_names():
    own = named(["backbone.x", "sem_seg_head.layers.0.weight", "sem_seg_head.predictor.weight"])
    assert convert_names(own, own.keys()) == (own, ())
