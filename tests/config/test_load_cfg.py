"""Reading recipes: chains, spellings, the command line, and what each mistake is told."""

import logging
import os

import pytest

from mask2former.config import get_cfg, load_cfg
from mask2former.utils.errors import UserError

# ---- files that build on files


def test_base_chain_is_relative_to_each_file_and_the_leaf_wins(write):
    write("SOLVER: {MAX_ITER: 1, BASE_LR: 0.5, GAMMA: 0.3}", "root.yaml")
    write("_BASE_: ../root.yaml\nSOLVER: {MAX_ITER: 2, BASE_LR: 0.25}", "a/middle.yaml")
    leaf = write("_BASE_: ../a/middle.yaml\nSOLVER: {MAX_ITER: 3}", "b/leaf.yaml")
    solver = load_cfg(leaf).SOLVER
    assert (solver.MAX_ITER, solver.BASE_LR, solver.GAMMA) == (3, 0.25, 0.3)


def test_several_bases_apply_in_order(write):
    write("SEED: 1\nOUTPUT_DIR: one", "one.yaml")
    write("SEED: 2", "two.yaml")
    cfg = load_cfg(write("_BASE_: [one.yaml, two.yaml]"))
    assert (cfg.SEED, cfg.OUTPUT_DIR) == (2, "one")


def test_base_may_start_with_a_tilde(write, tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path))
    write("SEED: 7", "home.yaml")
    assert load_cfg(write("_BASE_: ~/home.yaml", "x/leaf.yaml")).SEED == 7


def test_a_chain_that_closes_on_itself_is_told(write, error_of):
    write("_BASE_: b.yaml", "a.yaml")
    message = error_of(write("_BASE_: a.yaml", "b.yaml"))
    assert "closes on itself" in message and "a.yaml" in message and "b.yaml" in message


def test_a_missing_base_names_the_line(write, error_of):
    message = error_of(write("SEED: 1\n_BASE_: gone.yaml"))
    assert "recipe.yaml, line 2" in message and "gone.yaml" in message


# ---- spellings


@pytest.mark.parametrize("text", ["[640, 672]", "'(640, 672)'", '"[640, 672]"', "(640, 672)"])
def test_sequences_have_many_spellings_and_one_value(write, text):
    recipe = write(f"INPUT:\n  MIN_SIZE_TRAIN: {text}")
    assert load_cfg(recipe).INPUT.MIN_SIZE_TRAIN == [640, 672]
    assert load_cfg(write(""), ["INPUT.MIN_SIZE_TRAIN", text.strip("\"'")]).INPUT.MIN_SIZE_TRAIN == [640, 672]


def test_block_style_tuple_text_of_published_files(write):
    cfg = load_cfg(write('DATASETS:\n  TRAIN: ("coco_2017_train_panoptic",)\nSOLVER:\n  STEPS: (327778, 355092)\n'))
    assert cfg.DATASETS.TRAIN == ["coco_2017_train_panoptic"]
    assert cfg.SOLVER.STEPS == [327778, 355092]


@pytest.mark.parametrize("text, value", [("1e-4", 1e-4), ("1E+2", 100.0), ("3", 3.0), ("0.5", 0.5), ("'1e-4'", 1e-4)])
def test_floats(write, text, value):
    from_file = load_cfg(write(f"SOLVER: {{BASE_LR: {text}}}")).SOLVER.BASE_LR
    from_words = load_cfg(write(""), ["SOLVER.BASE_LR", text.strip("'")]).SOLVER.BASE_LR
    assert from_file == from_words == value
    assert type(from_file) is type(from_words) is float


def test_command_line_values(write):
    opts = ["MODEL.WEIGHTS", "", "OUTPUT_DIR", "5", "SOLVER.AMP.ENABLED", "True", "SEED", "3"]
    opts += ["DATASETS.TRAIN", "(camvid_train,)", "MODEL.DINAT.DILATIONS", "[[1, 8], [1, 4, 2]]"]
    opts += ["MODEL.MASK_FORMER.EXTRA_LOSSES", "[[boundary, 1e-1]]", "MODEL.RESNETS.NORM", "'BN'"]
    cfg = load_cfg(write("MODEL: {WEIGHTS: x.pkl}"), opts)
    assert (cfg.MODEL.WEIGHTS, cfg.OUTPUT_DIR, cfg.SOLVER.AMP.ENABLED, cfg.SEED) == ("", "5", True, 3)
    assert cfg.DATASETS.TRAIN == ["camvid_train"]
    assert cfg.MODEL.DINAT.DILATIONS == [[1, 8], [1, 4, 2]]
    assert cfg.MODEL.MASK_FORMER.EXTRA_LOSSES == [["boundary", 0.1]]
    assert cfg.MODEL.RESNETS.NORM == "BN"


def test_values_that_are_no_text_pass_through_the_list(write):
    assert load_cfg(write(""), ["SEED", 3, "INPUT.CROP.SIZE", (64, 64)]).INPUT.CROP.SIZE == [64, 64]


@pytest.mark.parametrize("value", ["0.02", "None", "~"])
def test_keys_that_are_none_by_default_take_anything(write, value):
    cfg = load_cfg(write(f"SOLVER: {{WEIGHT_DECAY_BIAS: {value}}}"), ["MODEL.SWIN.QK_SCALE", value])
    expected = 0.02 if value == "0.02" else None
    assert cfg.SOLVER.WEIGHT_DECAY_BIAS == cfg.MODEL.SWIN.QK_SCALE == expected


def test_types_are_those_of_the_defaults_whatever_a_base_has_set(write):
    write(
        "INPUT: {CROP: {SIZE: [640, 640]}}\nSOLVER: {WEIGHT_DECAY_BIAS: 0.1}\nMODEL: {PIXEL_STD: [1, 1, 1]}",
        "base.yaml",
    )
    cfg = load_cfg(
        write("_BASE_: base.yaml\nINPUT: {CROP: {SIZE: [0.5, 0.5]}}"),
        ["SOLVER.WEIGHT_DECAY_BIAS", "None", "MODEL.PIXEL_STD", "[0.5, 1, 2]"],
    )
    assert cfg.INPUT.CROP.SIZE == [0.5, 0.5] and cfg.SOLVER.WEIGHT_DECAY_BIAS is None
    assert cfg.MODEL.PIXEL_STD == [0.5, 1, 2]


def test_text_of_the_command_line_stays_as_it_is(write):
    for text in ("a # b", "ü: x", "[x]", "a: b", "~/x", "-", "2020-01-01", "#1", "it's", "yes", ""):
        assert load_cfg(write(""), ["OUTPUT_DIR", text]).OUTPUT_DIR == text
    assert load_cfg(write(""), ["OUTPUT_DIR", '""']).OUTPUT_DIR == ""


def test_keys_that_a_program_adds_can_be_merged(write):
    cfg = get_cfg()
    cfg.MODEL.MINE = 1
    cfg.merge_from_file(write("MODEL: {MINE: 2}"))
    assert cfg.MODEL.MINE == 2
    with pytest.raises(UserError, match="int is expected"):
        cfg.merge_from_list(["MODEL.MINE", "two"])


@pytest.mark.parametrize("text", ["1.0 / 1000 * 2", "1 / 0", "(1) / 2", "2 ** -3", "1e308 / 1e-308", "1 / x"])
def test_arithmetic_is_never_evaluated(write, text, error_of):
    message = error_of(write(f"SOLVER: {{WARMUP_FACTOR: {text}}}"))
    assert "SOLVER.WARMUP_FACTOR" in message and "float" in message and "str" in message


def test_anchors_and_merge_keys(write):
    cfg = load_cfg(write("SOLVER:\n  AMP: &on {ENABLED: True}\nTEST: {AUG: {<<: *on}}"))
    assert cfg.SOLVER.AMP.ENABLED and cfg.TEST.AUG.ENABLED


# ---- sections that a recipe fills itself


def test_custom_data_sets_from_file_and_command_line(write):
    recipe = write("DATASETS:\n  CUSTOM:\n    camvid: {TYPE: sem_seg_folder, ROOT: '1', CLASSES: [a, b]}\n")
    assert load_cfg(recipe).DATASETS.CUSTOM.camvid.ROOT == "1"  # quoted text stays text
    cfg = load_cfg(recipe, ["DATASETS.CUSTOM.camvid.ROOT", "/data", "DATASETS.CUSTOM.other.IGNORE_LABEL", "0"])
    assert cfg.DATASETS.CUSTOM.camvid.ROOT == "/data"
    assert cfg.DATASETS.CUSTOM["camvid"]["CLASSES"] == ["a", "b"]
    assert cfg.DATASETS.CUSTOM.other.IGNORE_LABEL == 0
    whole = load_cfg(recipe, ["DATASETS.CUSTOM", "{more: {ROOT: x}}"])
    assert set(whole.DATASETS.CUSTOM) == {"camvid", "more"}
    assert get_cfg().DATASETS.CUSTOM == {}


def test_a_section_can_be_given_as_one_word(write):
    cfg = load_cfg(write(""), ["SOLVER.AMP", "{ENABLED: true, DTYPE: bfloat16}"])
    assert cfg.SOLVER.AMP.ENABLED and cfg.SOLVER.AMP.DTYPE == "bfloat16"


def test_imports_become_absolute_beside_the_recipe_first(write, tmp_path, monkeypatch):
    module = write("", "recipes/my_data.py")
    here = write("", "cwd/other.py")
    monkeypatch.chdir(here.parent)
    cfg = load_cfg(write("IMPORTS: [my_data.py, other.py, package.module, absent.py]", "recipes/r.yaml"))
    assert cfg.IMPORTS == [os.path.realpath(module), os.path.realpath(here), "package.module", "absent.py"]


# ---- saving


def test_a_saved_config_loads_again_and_is_equal(write, tmp_path):
    recipe = write("DATASETS: {CUSTOM: {x: {CLASSES: [yes it is, '1e5', 'no', '3']}}}\nSOLVER: {BASE_LR: 1e-5}")
    cfg = load_cfg(recipe, ["MODEL.DINAT.DILATIONS", "[[1, 8], [1]]", "OUTPUT_DIR", "1e5", "MODEL.WEIGHTS", "ü: #x"])
    saved = tmp_path / "out.yaml"
    saved.write_text(cfg.dump(), encoding="utf-8")
    assert load_cfg(saved) == cfg
    assert load_cfg(saved).DATASETS.CUSTOM.x.CLASSES == ["yes it is", "1e5", "no", "3"]


def test_frozen_configs_refuse_changes_and_their_clones_do_not(write):
    cfg = load_cfg(write("SEED: 1"))
    cfg.freeze()
    with pytest.raises(AttributeError):
        cfg.merge_from_list(["SEED", "2"])
    with pytest.raises(AttributeError):
        cfg.SEED = 2
    clone = cfg.clone()
    clone.defrost()
    clone.merge_from_list(["SEED", "2"])
    assert (cfg.SEED, clone.SEED) == (1, 2)


# ---- mistakes


@pytest.mark.parametrize(
    "key, nearest",
    [
        ("MODEL.MASK_FORMER.NUM_OBJECT_QUERY", "MODEL.MASK_FORMER.NUM_OBJECT_QUERIES"),
        ("MODEL.MASKFORMER.DROPOUT", "MODEL.MASK_FORMER.DROPOUT"),
        ("SOLVER.NUM_CLASSES", "MODEL.SEM_SEG_HEAD.NUM_CLASSES"),
        ("MODEL.SWIN.NUM_HEAD", "MODEL.SWIN.NUM_HEADS"),
        ("solver.max_iter", "SOLVER.MAX_ITER"),
        ("OUTPUT", "OUTPUT_DIR"),
    ],
)
def test_an_unknown_key_names_the_nearest_one(write, key, nearest, error_of):
    message = error_of(write(""), [key, "1"])
    assert f"unknown key {key}" in message and f"'{nearest}'" in message and message.startswith("command line")


def test_an_unknown_key_names_its_file_and_line_even_in_a_base(write, error_of):
    write("SEED: 1\n\nMODEL:\n  # comment\n  BACKBONE:\n    NAMES: x\n", "base.yaml")
    message = error_of(write("_BASE_: base.yaml"))
    assert "base.yaml, line 6: unknown key MODEL.BACKBONE.NAMES" in message and "'MODEL.BACKBONE.NAME'" in message


@pytest.mark.parametrize(
    "text, found, expected",
    [
        ("SOLVER:\n  MAX_ITER: many", "str", "int"),
        ("SOLVER:\n  MAX_ITER: 1.5", "float", "int"),
        ("SOLVER:\n  BASE_LR: [1]", "list", "float"),
        ("SOLVER:\n  MAX_ITER: True", "bool", "int"),
        ("INPUT:\n  COLOR_AUG_SSD: 1", "int", "bool"),
        ("INPUT:\n  MIN_SIZE_TRAIN: 640", "int", "list"),
        ("INPUT:\n  MIN_SIZE_TRAIN: [640, x]", "str", "int"),
        ("DATASETS:\n  TRAIN: camvid_train", "str", "list"),
        ("MODEL:\n  WEIGHTS: 5", "int", "str"),
        ("MODEL:\n  WEIGHTS: {a: 1}", "section", "str"),
        ("MODEL:\n  BACKBONE: resnet", "str", "section"),
        ("SEED:\n  ~", "None", "int"),
    ],
)
def test_a_wrong_type_names_both_types_and_the_line(write, text, found, expected, error_of):
    message = error_of(write(text))
    line = 1 if text.startswith("SEED") else 2
    assert f"recipe.yaml, line {line}" in message and found in message and expected in message


def test_a_wrong_type_on_the_command_line_says_so(write, error_of):
    message = error_of(write(""), ["SOLVER.MAX_ITER", "many"])
    assert message.startswith("command line: SOLVER.MAX_ITER is 'many' (str), but int is expected")


@pytest.mark.parametrize(
    "value",
    [
        '!!python/object/apply:os.system ["touch pwned"]',
        '!!python/object/apply:eval ["[1, 2]"]',
        "!!python/tuple [1, 2]",
        "[1, !!python/name:os.system x]",
        "!custom 3",
    ],
)
def test_foreign_tags_are_refused_and_never_run(write, tmp_path, monkeypatch, value, error_of):
    monkeypatch.chdir(tmp_path)
    message = error_of(write(f"SEED: 1\nINPUT:\n  MIN_SIZE_TRAIN: {value}\n"))
    assert "recipe.yaml, line 3" in message and "tag" in message
    assert not (tmp_path / "pwned").exists()


def test_foreign_tags_on_the_command_line_stay_text(write, error_of):
    message = error_of(write(""), ["SEED", '!!python/object/apply:eval ["1"]'])
    assert "SEED" in message and "int is expected" in message


@pytest.mark.parametrize(
    "text, words",
    [
        ("MODEL:\n  WEIGHTS: [1", ("line", "not valid YAML")),
        ("- a\n- b", ("line 1", "mapping", "list")),
        ("SEED: 1\nSEED: 2", ("line 2", "SEED", "line 1")),
        ("SEED: \x01", ("not valid YAML",)),
        ("OUTPUT_DIR: 2020-99-99", ("line 1",)),
        ("MODEL: &a\n  RPN: *a", ("contains itself",)),
    ],
)
def test_broken_files_are_told_by_line(write, text, words, error_of):
    message = error_of(write(text))
    assert "recipe.yaml" in message and all(word in message for word in words)


def test_missing_files_and_odd_lists(write, tmp_path, error_of):
    assert "absent.yaml" in error_of(tmp_path / "absent.yaml")
    assert "SOLVER.MAX_ITER=5" in error_of(write(""), ["SOLVER.MAX_ITER=5"])
    binary = tmp_path / "binary.yaml"
    binary.write_bytes(b"\xff\xfe\x00")
    assert "UTF-8" in error_of(binary)


# ---- detectron2 keys without meaning


def test_ignored_keys_are_said_once_and_leave_no_trace(write, caplog, monkeypatch):
    monkeypatch.setattr(logging.getLogger("mask2former"), "propagate", True)
    write("VERSION: 2\nMODEL: {RPN: {NMS_THRESH: 0.7}, MASK_ON: True}", "base.yaml")
    with caplog.at_level(logging.INFO, "mask2former"):
        cfg = load_cfg(write("_BASE_: base.yaml\nMODEL: {ROI_HEADS: {NAME: x}, MASK_ON: False}"))
    assert len(caplog.records) == 1
    text = caplog.records[0].getMessage()
    assert all(key in text for key in ("VERSION", "MODEL.RPN", "MODEL.ROI_HEADS")) and text.count("MODEL.MASK_ON") == 1
    assert cfg == get_cfg()
