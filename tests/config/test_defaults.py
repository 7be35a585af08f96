"""Defaults and recipes equal the published ones, key by key."""

import json

import pytest

from mask2former.config import CfgNode, get_cfg, load_cfg
from mask2former.config.compat import IGNORED_KEYS, IGNORED_SECTIONS, is_ignored

OURS = {
    "MODEL.ACTIVATION_CHECKPOINTING",
    "MODEL.CHANNELS_LAST",
    "MODEL.COMPILE",
    "DATASETS.CUSTOM",
    "IMPORTS",
    "MODEL.MASK_FORMER.CLASS_WEIGHTS",
    "MODEL.MASK_FORMER.EXTRA_LOSSES",
    "MODEL.MASK_FORMER.MASK_LOSS",
    "MODEL.MASK_FORMER.TEST.PANOPTIC_FILL",
    "MODEL.SEM_SEG_HEAD.TRANSFORMER_DIM_FEEDFORWARD",
    "MODEL.DINAT.LAYER_SCALE",
    "MODEL.TIMM.DROP_PATH_RATE",
    "MODEL.TIMM.IMAGE_SIZE",
    "MODEL.TIMM.NORM",
    "MODEL.TIMM.OUT_FEATURES",
    "MODEL.TIMM.WEIGHTS",
    "SOLVER.ACCUMULATE_STEPS",
    "SOLVER.AMP.DTYPE",
    "TEST.DETECTIONS_PER_VIDEO",
    "TEST.NUM_VISUALIZED",
    "TEST.SAVE_PREDICTIONS",
    "TEST.WINDOW_OVERLAP",
    "TEST.WINDOW_SIZE",
}
# published families whose recipes are all here -> (folder below configs/, number of recipes)
FAMILIES = {
    "mask2former": ("", 57),
    "mask2former_video": ("", 14),
    "dinat": ("", 8),
    "maskformer": ("maskformer/", 36),
}
# keys unknown to a family's code, by which its recipes choose here what that code does
CHOSEN = {
    "maskformer": {
        "MODEL.MASK_FORMER.MASK_LOSS",
        "MODEL.MASK_FORMER.TEST.PANOPTIC_FILL",
        "MODEL.MASK_FORMER.TRAIN_NUM_POINTS",
        "MODEL.MASK_FORMER.TRANSFORMER_DECODER_NAME",
    }
}


def flat(node: CfgNode, prefix: str = "") -> dict:
    """Dotted key -> value; open sections count as one key."""
    out = {}
    for key, value in node.items():
        name = prefix + key
        out.update(flat(value, name + ".") if isinstance(value, CfgNode) and name not in OURS else {name: value})
    return out


@pytest.fixture(scope="module")
def published(shared_dir) -> dict:
    return json.loads((shared_dir / "reference" / "configs.json").read_text())


def same(ours, theirs) -> bool:
    return type(ours) is type(theirs) and ours == theirs


def test_keys_and_defaults_are_the_published_ones(published):
    expected = dict(published["detectron2_defaults"])
    for family in published.values():
        expected.update(family.get("defaults_added", {}))
    ours = flat(get_cfg())
    assert {key for key in expected if key not in ours and not is_ignored(key)} == set()
    assert {key for key in ours if key not in expected} == OURS
    assert [key for key in ours if key in expected and not same(ours[key], expected[key])] == []


def test_ignored_keys_are_detectron2s_and_not_known_here(published):
    theirs = published["detectron2_defaults"]
    assert set(theirs) >= IGNORED_KEYS
    assert all(any(key.startswith(section + ".") for key in theirs) for section in IGNORED_SECTIONS)
    assert [key for key in flat(get_cfg()) if is_ignored(key)] == []


@pytest.mark.parametrize("name", FAMILIES)
def test_recipes_resolve_to_the_published_values(published, repo_dir, name):
    family, (folder, count) = published[name], FAMILIES[name]
    defaults = {**published["detectron2_defaults"], **family["defaults_added"]}
    ours_by_default = flat(get_cfg())
    assert len(family["recipes"]) == count
    for path, values in family["recipes"].items():
        got = flat(load_cfg(repo_dir / "configs" / folder / path))
        want = {key: value for key, value in {**defaults, **values}.items() if not is_ignored(key)}
        wrong = {key: (got[key], value) for key, value in want.items() if not same(got[key], value)}
        assert wrong == {}, path
        moved = {key for key in got if key not in want and got[key] != ours_by_default[key]}
        assert moved <= CHOSEN.get(name, set()), path


def test_get_cfg_gives_independent_copies():
    first = get_cfg()
    first.MODEL.PIXEL_MEAN[0] = 0.0
    first.INPUT.CROP.ENABLED = True
    assert get_cfg().MODEL.PIXEL_MEAN[0] == 103.53
    assert get_cfg().INPUT.CROP.ENABLED is False
