"""Drawing records of each kind, and training samples."""

import numpy as np
import pytest
from PIL import Image


@pytest.fixture(scope="module")
def script(tool):
    return tool("visualize_data")


@pytest.fixture
def run(tool, script):
    return lambda *words: tool("_common").run_main(script.main, [str(word) for word in words])


def pictures(folder):
    return {path.name: np.array(Image.open(path)) for path in sorted(folder.iterdir())}


@pytest.mark.parametrize("dataset", ["sem_train", "inst_train", "pan_train"])
def test_records_are_drawn_at_their_size(run, shapes, tmp_path, dataset):
    assert run("--config-file", shapes, "--dataset", dataset, "--output-dir", tmp_path / "out", "--num", 3) == 0
    drawn = pictures(tmp_path / "out")
    assert list(drawn) == ["000000_00000.png", "000002_00002.png", "000004_00004.png"]
    for name, picture in drawn.items():
        image = np.array(Image.open(shapes.parent / "shapes" / "train" / "images" / f"{name[7:12]}.jpg"))
        assert picture.shape == image.shape
        assert (picture != image).any()


def test_a_recipe_s_training_data_is_the_default(run, shapes, tmp_path):
    assert run("--config-file", shapes, "--output-dir", tmp_path) == 0
    assert len(pictures(tmp_path)) == 6


@pytest.mark.parametrize(("dataset", "task"), [("sem", "semantic"), ("inst", "instance"), ("pan", "panoptic")])
def test_samples_are_drawn_as_training_sees_them(run, shapes, tmp_path, dataset, task):
    words = ["--config-file", shapes, "--dataset", f"{dataset}_train", "--source", "dataloader", "--num", 5]
    keys = ["INPUT.DATASET_MAPPER_NAME", f"mask_former_{task}", "INPUT.CROP.SIZE", "[32,48]"]
    assert run(*words, "--output-dir", tmp_path, *keys, "INPUT.SIZE_DIVISIBILITY", 64) == 0
    drawn = pictures(tmp_path)
    assert len(drawn) == 5
    assert {picture.shape for picture in drawn.values()} == {(64, 64, 3)}


@pytest.mark.parametrize("format", ["RGB", "BGR"])
def test_samples_have_their_own_colours(script, shapes, tool, format):
    """The order of the channels that the model takes is turned back for the picture."""
    keys = ["INPUT.FORMAT", format, "INPUT.CROP.ENABLED", "False", "INPUT.COLOR_AUG_SSD", "False", "SEED", "1"]
    cfg = tool("_common").load_registered(shapes, [*keys, "INPUT.MIN_SIZE_TRAIN", "[64]"])
    cfg.INPUT.RANDOM_FLIP, cfg.INPUT.SIZE_DIVISIBILITY = "none", -1
    name, drawn = next(script.draw_samples(cfg, 1))
    image = np.array(Image.open(shapes.parent / "shapes" / "train" / "images" / f"{name[7:]}.jpg")).astype(float)
    # half the drawing is the image, whose channels differ more from each other than its mean from the drawing's
    own = np.corrcoef(drawn[..., 0].ravel(), image[..., 0].ravel())[0, 1]
    other = np.corrcoef(drawn[..., 0].ravel(), image[..., 2].ravel())[0, 1]
    assert own > other


def test_frames_of_a_video_stand_side_by_side(run, videos, tmp_path):
    assert run("--config-file", videos, "--output-dir", tmp_path / "records", "--num", 2) == 0
    drawn = pictures(tmp_path / "records")
    assert list(drawn) == ["000000_000.png", "000001_001.png"]
    assert {picture.shape for picture in drawn.values()} == {(48, 4 * 64 + 3 * 4, 3)}
    folder = videos.parent / "shapes" / "train" / "JPEGImages" / "000"
    first = np.array(Image.open(folder / "00000.jpg"))
    changed = (drawn["000000_000.png"][:, :64] != first).any(-1).mean()
    assert 0.01 < changed < 0.9  # things are drawn over, the ground is not
    words = ["--config-file", videos, "--source", "dataloader", "--num", 2]
    assert run(*words, "--output-dir", tmp_path / "samples") == 0
    assert {picture.shape for picture in pictures(tmp_path / "samples").values()} == {(48, 3 * 64 + 2 * 4, 3)}


def test_mistakes_are_told(run, shapes, tmp_path, capsys):
    assert run("--output-dir", tmp_path) == 2
    assert "--dataset NAME" in capsys.readouterr().err
    assert run("--config-file", shapes, "--dataset", "sem_trian", "--output-dir", tmp_path) == 2
    assert "Did you mean 'sem_train'" in capsys.readouterr().err
