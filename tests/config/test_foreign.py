"""What recipes of users carry beside published keys, and which keys somebody chose."""

import logging

import pytest

from mask2former.config import foreign, get_cfg, load_cfg

BASE = "configs/ade20k/semantic-segmentation/maskformer2_R50_bs16_160k.yaml"


@pytest.fixture
def said(caplog, monkeypatch):
    """The warnings so far."""
    monkeypatch.setattr(logging.getLogger("mask2former"), "propagate", True)
    return lambda: [record.getMessage() for record in caplog.records if record.levelno == logging.WARNING]


# ---- a tutorial's recipe

MEANT = {
    "MODEL.MASK_FORMER.NUM_OBJECT_QUERIES": 100,
    "MODEL.MASK_FORMER.TRANSFORMER_IN_FEATURE": "res5",
    "MODEL.SEM_SEG_HEAD.PIXEL_DECODER_NAME": "BasePixelDecoder",
    "MODEL.SEM_SEG_HEAD.IN_FEATURES": ["res2", "res3", "res4", "res5"],
    "MODEL.SEM_SEG_HEAD.COMMON_STRIDE": 4,
    "MODEL.SEM_SEG_HEAD.CONVS_DIM": 256,
    "MODEL.SEM_SEG_HEAD.MASK_DIM": 256,
    "MODEL.SEM_SEG_HEAD.NORM": "GN",
    "MODEL.SEM_SEG_HEAD.IGNORE_VALUE": 255,
    "MODEL.BACKBONE.FREEZE_AT": 0,  # of the base
    "DATASETS.TRAIN": ["your_dataset_name_train"],
    "DATASETS.TEST": ["your_dataset_name_val"],
    "SOLVER.IMS_PER_BATCH": 16,
    "SOLVER.BASE_LR": 0.0001,
    "SOLVER.MAX_ITER": 90000,
    "SOLVER.STEPS": [60000, 80000],
    "SOLVER.WARMUP_FACTOR": 0.001,
    "SOLVER.WARMUP_ITERS": 1000,
    "TEST.EVAL_PERIOD": 5000,
    "INPUT.MIN_SIZE_TRAIN": [640, 672, 704, 736, 768, 800],
    "INPUT.MAX_SIZE_TRAIN": 1333,
    "DATALOADER.NUM_WORKERS": 2,
}
# key as it is written -> what to write instead, in the one sentence about it
TOLD = {
    "MODEL.MASK_FORMER.NUM_QUERIES": "MODEL.MASK_FORMER.NUM_OBJECT_QUERIES",
    "MODEL.MASK_FORMER.COMMON_STRIDE": "MODEL.MASK_FORMER.SIZE_DIVISIBILITY",
    "MODEL.MASK_FORMER.NUM_CLASSES": "MODEL.SEM_SEG_HEAD.NUM_CLASSES",
    "MODEL.PIXEL_DECODER.NAME": "MODEL.SEM_SEG_HEAD.PIXEL_DECODER_NAME",
    "MODEL.PIXEL_DECODER.IN_FEATURES": "MODEL.SEM_SEG_HEAD.IN_FEATURES",
    "MODEL.PIXEL_DECODER.COMMON_STRIDE": "MODEL.SEM_SEG_HEAD.COMMON_STRIDE",
    "MODEL.PIXEL_DECODER.CONVS_DIM": "MODEL.SEM_SEG_HEAD.CONVS_DIM",
    "MODEL.PIXEL_DECODER.MASK_DIM": "MODEL.SEM_SEG_HEAD.MASK_DIM",
    "MODEL.PIXEL_DECODER.NORM": "MODEL.SEM_SEG_HEAD.NORM",
    "MODEL.PIXEL_DECODER.NUM_GROUPS": "MODEL.SEM_SEG_HEAD.NORM",
    "MODEL.PIXEL_DECODER.USE_CHECKPOINT": "SOLVER.ACCUMULATE_STEPS",
    "MODEL.PIXEL_DECODER.IGNORE_VALUE": "MODEL.SEM_SEG_HEAD.IGNORE_VALUE",
    "SOLVER.WARMUP_FACTOR": "write 0.001",
    "SOLVER.EVAL_PERIOD": "TEST.EVAL_PERIOD",
}


def value_of(cfg, key: str):
    for word in key.split("."):
        cfg = cfg[word]
    return cfg


@pytest.fixture
def tutorial(shared_dir) -> str:
    return (shared_dir / "reference" / "tutorial" / "your_config.yaml").read_text()


def test_the_tutorials_recipe_loads_and_each_foreign_key_is_told_once(tutorial, write, said, repo_dir):
    first, rest = tutorial.split("\n", 1)
    assert first.startswith("_BASE_")
    cfg = load_cfg(write(f"_BASE_: {repo_dir / BASE}\n{rest}"))
    assert {key: value_of(cfg, key) for key in MEANT} == MEANT
    assert cfg.MODEL.SEM_SEG_HEAD.NUM_CLASSES == get_cfg().MODEL.SEM_SEG_HEAD.NUM_CLASSES
    assert not cfg.given("MODEL.SEM_SEG_HEAD.NUM_CLASSES")  # the base's 150 is taken back: the data set says it
    for key, instead in TOLD.items():
        about = [text for text in said() if f": {key} " in text]
        assert len(about) == 1 and instead in about[0] and "recipe.yaml, line " in about[0], key
    ignored = [text for text in said() if "INPUT.MASK_FORMAT" in text]
    assert len(said()) == len(TOLD) + len(ignored) == len(TOLD) + 1


def test_the_tutorials_missing_base_is_named_beside_recipes_that_exist(tutorial, write, error_of):
    write("SEED: 1", "mine/maskformer_swin_tiny_384_bs16_160k.yaml")
    message = error_of(write(tutorial, "mine/recipe.yaml"))
    assert "mine/recipe.yaml, line 1" in message and "../mask2former/maskformer_swin_tiny_IN21k" in message
    near = message.split("Nearest recipes that exist: ")[1].rstrip(".").split(", ")
    assert near[0] == "maskformer_swin_tiny_384_bs16_160k.yaml" and len(near) == 3
    assert any(path.endswith("_160k.yaml") and "configs" in path for path in near[1:])  # of the published tree


# ---- the table


def test_one_meaning_under_two_names_is_fine_and_two_meanings_are_not(write, said, error_of):
    both = "MODEL: {NUM_CLASSES: %d, MASK_FORMER: {NUM_CLASSES: 3}, SEM_SEG_HEAD: {NUM_CLASSES: 3}}"
    cfg = load_cfg(write(both % 3))
    assert cfg.MODEL.SEM_SEG_HEAD.NUM_CLASSES == 3 and cfg.given("MODEL.SEM_SEG_HEAD.NUM_CLASSES")
    message = error_of(write(both % 4))
    assert "MODEL.MASK_FORMER.NUM_CLASSES is 3, but MODEL.NUM_CLASSES is 4" in message
    assert "Keep MODEL.SEM_SEG_HEAD.NUM_CLASSES alone" in message


def test_the_command_line_knows_foreign_keys_and_has_the_last_word(write, said):
    recipe = write("MODEL: {MASK_FORMER: {NUM_QUERIES: 50}}")
    assert load_cfg(recipe).MODEL.MASK_FORMER.NUM_OBJECT_QUERIES == 50
    cfg = load_cfg(recipe, ["MODEL.MASK_FORMER.NUM_QUERIES", "7", "SOLVER.WARMUP_FACTOR", "1/4"])
    assert (cfg.MODEL.MASK_FORMER.NUM_OBJECT_QUERIES, cfg.SOLVER.WARMUP_FACTOR) == (7, 0.25)
    assert any(text.startswith("command line: MODEL.MASK_FORMER.NUM_QUERIES") for text in said())


@pytest.mark.parametrize(
    "text, words",
    [
        ("MODEL: {PIXEL_DECODER: {NUM_GROUPS: 16}}", ("NUM_GROUPS 16", "32 groups")),
        ("MODEL: {PIXEL_DECODER: {USE_CHECKPOINT: True}}", ("USE_CHECKPOINT True", "ACCUMULATE_STEPS")),
        (
            "MODEL: {PIXEL_DECODER: {CONVS_DIMS: 16}}",
            ("MODEL.PIXEL_DECODER.CONVS_DIMS", "MODEL.SEM_SEG_HEAD.CONVS_DIM"),
        ),
        ("MODEL: {PIXEL_DECODER: BasePixelDecoder}", ("unknown key MODEL.PIXEL_DECODER",)),
        ("MODEL: {MASK_FORMER: {NUM_QUERIES: many}}", ("NUM_OBJECT_QUERIES", "int is expected")),
        ("SOLVER: {EPOCHS: 12}", ("SOLVER.EPOCHS", "SOLVER.MAX_ITER")),
        ("SOLVER: {MAX_ITER: <iterations>}", ("SOLVER.MAX_ITER", "'<iterations>'", "int is expected")),
    ],
)
def test_what_cannot_be_mapped_is_refused_with_advice(write, text, words, error_of):
    message = error_of(write(text))
    assert message.startswith(str(write(text))) and all(word in message for word in words)


def test_every_target_of_the_table_is_a_key():
    for target in foreign.MOVED.values():
        assert not isinstance(value_of(get_cfg(), target), dict)
    for key in (*foreign.MOVED, *foreign.LEFT_OUT, *foreign.REFUSED):
        with pytest.raises(KeyError):
            value_of(get_cfg(), key)


def test_class_weights_have_the_names_of_classes(write, error_of):
    cfg = load_cfg(
        write("MODEL:\n  MASK_FORMER:\n    CLASS_WEIGHTS: {traffic light: 3, 'no. 5': 0.5, 7: 2}"),
        ["MODEL.MASK_FORMER.CLASS_WEIGHTS.road", "2.5"],
    )
    assert cfg.MODEL.MASK_FORMER.CLASS_WEIGHTS == {"traffic light": 3, "no. 5": 0.5, "7": 2, "road": 2.5}
    assert "CLASS NAME: WEIGHT" in error_of(write("MODEL: {MASK_FORMER: {CLASS_WEIGHTS: [1, 2]}}"))


# ---- who chose a value


def test_given_tells_what_a_recipe_or_the_command_line_wrote(write):
    key = "MODEL.SEM_SEG_HEAD.NUM_CLASSES"
    assert not get_cfg().given(key) and not load_cfg(write("SEED: 1")).given(key)
    default = get_cfg().MODEL.SEM_SEG_HEAD.NUM_CLASSES
    write(f"MODEL: {{SEM_SEG_HEAD: {{NUM_CLASSES: {default}}}}}", "base.yaml")
    by_base = load_cfg(write("_BASE_: base.yaml"))
    by_word = load_cfg(write("SEED: 1"), [key, str(default)])
    for cfg in (by_base, by_word, by_base.clone()):
        assert cfg.given(key) and cfg.given("MODEL.SEM_SEG_HEAD") and not cfg.given("MODEL.SWIN")
    by_base.freeze()
    assert by_base.given(key) and by_base.clone().given(key)


def test_given_tells_what_a_program_changed():
    cfg = get_cfg()
    cfg.SOLVER.MAX_ITER = 7
    assert cfg.given("SOLVER.MAX_ITER") and cfg.given("SOLVER") and not cfg.given("TEST")


def test_a_saved_config_gives_every_key(write, tmp_path):
    (tmp_path / "saved.yaml").write_text(load_cfg(write("SEED: 1")).dump())
    cfg = load_cfg(tmp_path / "saved.yaml")
    assert all(cfg.given(key) for key in ("MODEL.SEM_SEG_HEAD.NUM_CLASSES", "SEED", "INPUT.CROP.SIZE"))


def test_sections_that_are_open_are_given_once_they_are_filled(write):
    cfg = load_cfg(write("DATASETS: {CUSTOM: {a: {ROOT: x}}}"))
    assert cfg.given("DATASETS.CUSTOM") and cfg.given("DATASETS.CUSTOM.a.ROOT") and not cfg.given("DATASETS.TRAIN")
