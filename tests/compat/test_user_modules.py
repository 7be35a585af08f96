"""Modules of users, written against detectron2, with and without it."""

import importlib.util
import logging
import subprocess
import sys

import pytest

from mask2former.compat import load_user_modules, real_detectron2
from mask2former.data import DatasetCatalog, MetadataCatalog, labels_of
from mask2former.utils.errors import UserError


def loaded(tmp_path, text: str, name: str = "user_code.py"):
    """The module that the text makes, loaded as IMPORTS loads it."""
    (tmp_path / name).write_text(text)
    load_user_modules([name], tmp_path)
    return next(m for m in sys.modules.values() if str(getattr(m, "__file__", "")) == str(tmp_path / name))


def error_of(tmp_path, text: str) -> str:
    with pytest.raises(UserError) as caught:
        loaded(tmp_path, text, "broken.py")
    return str(caught.value)


def test_the_tutorials_module_registers_its_data_sets(shared_dir, two_folders, monkeypatch):
    text = (shared_dir / "reference" / "tutorial" / "register_your_dataset.py").read_text()
    monkeypatch.setenv("DETECTRON2_DATASETS", str(two_folders))
    loaded(two_folders, text.replace("register_all_schwarmstudie", "register_all_your_dataset"))
    assert [len(DatasetCatalog.get(f"your_dataset_name_{split}")) for split in ("train", "val")] == [2, 1]
    labels = labels_of(MetadataCatalog.get("your_dataset_name_val"))
    assert labels.names == ("background", "class1") and labels.colors == ((0, 0, 0), (255, 0, 0))
    record = DatasetCatalog.get("your_dataset_name_val")[0]
    assert record["file_name"].endswith("valid/images/0.jpg")
    assert record["sem_seg_file_name"].endswith("valid/masks/0.png")


def test_the_tutorials_mistake_is_named_with_its_line(shared_dir, tmp_path):
    text = (shared_dir / "reference" / "tutorial" / "register_your_dataset.py").read_text()
    line = 1 + text[: text.index("\nregister_all_")].count("\n") + 1
    message = error_of(tmp_path, text)
    assert "NameError" in message and "register_all_schwarmstudie" in message and f"line {line}" in message


def test_aliases_are_the_same_objects(tmp_path):
    from mask2former.config import CfgNode, get_cfg
    from mask2former.data import load_coco_json
    from mask2former.structures import BitMasks, Instances

    module = loaded(
        tmp_path,
        "from detectron2.config import CfgNode, get_cfg, configurable\n"
        "from detectron2.data import DatasetCatalog, MetadataCatalog, build_detection_test_loader\n"
        "from detectron2.data import detection_utils as utils, transforms as T\n"
        "from detectron2.data.datasets import load_sem_seg, register_coco_instances, load_coco_json\n"
        "from detectron2.data.datasets.coco_panoptic import register_coco_panoptic_separated\n"
        "from detectron2.evaluation import SemSegEvaluator, COCOEvaluator, COCOPanopticEvaluator\n"
        "from detectron2.projects.deeplab import add_deeplab_config\n"
        "from detectron2.projects.point_rend import ColorAugSSDTransform\n"
        "from detectron2.structures import BitMasks, Boxes, BoxMode, Instances, PolygonMasks\n"
        "from detectron2.utils.logger import setup_logger\n"
        "from detectron2.utils.file_io import PathManager\n"
        "import detectron2.utils.comm as comm\n"
        "from mask2former import add_maskformer2_config, MaskFormerPanopticDatasetMapper\n"
        "cfg = get_cfg(); add_deeplab_config(cfg); add_maskformer2_config(cfg)\n"
        "assert cfg == get_cfg() and comm.is_main_process() and BoxMode.XYWH_ABS == 1\n"
        "setup_logger(name='mine').info('hello')\n",
    )
    ours = {"CfgNode": CfgNode, "get_cfg": get_cfg, "BitMasks": BitMasks, "Instances": Instances}
    ours |= {"DatasetCatalog": DatasetCatalog, "MetadataCatalog": MetadataCatalog, "load_coco_json": load_coco_json}
    assert {name: getattr(module, name) is value for name, value in ours.items()} == dict.fromkeys(ours, True)


@pytest.mark.parametrize(
    "text, words",
    [
        ("from detectron2.engine import DefaultTrainer", ("detectron2.engine", "Here (detectron2): config, data")),
        ("from detectron2.data import DatasetCatalogue", ("DatasetCatalogue", "Did you mean 'DatasetCatalog'?")),
        ("import detectron2.data.transforms as T\nT.RandomFlop", ("RandomFlop", "'RandomFlip'", "line 2")),
        ("import detectron2.data.samplers", ("detectron2.data.samplers", "not installed")),
    ],
)
def test_what_has_no_counterpart_is_told_with_what_there_is(tmp_path, text, words):
    message = error_of(tmp_path, text)
    assert "detectron2 is not installed" in message and all(word in message for word in words)
    assert str(tmp_path / "broken.py") in message


def test_every_alias_leads_somewhere():
    from mask2former.compat.aliases import ALIASES
    from mask2former.compat.importer import _names, _resolve

    dead = []
    for module in ALIASES:
        assert module.rpartition(".")[0] in ("", *ALIASES)
        for name in _names(module):
            try:
                _resolve(module, name)
            except (ImportError, AttributeError):
                dead.append(f"{module}.{name}")
    assert dead == []


def test_aliases_exist_only_where_a_user_module_was_loaded(tmp_path):
    (tmp_path / "user.py").write_text("import detectron2.data\n")
    code = (
        "from pathlib import Path\n"
        "from mask2former.compat import load_user_modules\n"
        "load_user_modules([])\n"
        "try:\n    import detectron2\nexcept ModuleNotFoundError as e:\n    print(e)\n"
        f"load_user_modules(['user.py'], Path({str(tmp_path)!r}))\n"
        "import detectron2; print(detectron2.data.DatasetCatalog)\n"
    )
    out = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    assert out.splitlines() == ["No module named 'detectron2'", "DatasetCatalog()"]


def test_files_without_partner_are_left_out_as_detectron2_does(two_folders, tmp_path):
    module = loaded(tmp_path, "from detectron2.data.datasets.coco import load_sem_seg\n")
    train = two_folders / "your_dataset_name" / "train"
    assert len(module.load_sem_seg(train / "masks", train / "images")) == 2
    next((train / "masks").iterdir()).unlink()
    assert len(module.load_sem_seg(str(train / "masks"), str(train / "images"), gt_ext="png", image_ext="jpg")) == 1


def test_a_bare_folder_of_that_name_is_not_the_package(tmp_path, monkeypatch):
    (tmp_path / "detectron2").mkdir()  # as a clone in the current folder looks
    monkeypatch.syspath_prepend(tmp_path)
    module = loaded(tmp_path, "from detectron2.data import DatasetCatalog\n")
    assert module.DatasetCatalog is DatasetCatalog and not real_detectron2()


# ---- with the real one


def test_the_real_packages_catalogs_are_consulted(stub_detectron2, tmp_path):
    assert real_detectron2()
    module = loaded(tmp_path, "import detectron2.data as data\n")
    assert module.data.__file__.startswith(str(stub_detectron2)) and module.data.DatasetCatalog is not DatasetCatalog
    assert DatasetCatalog.get("theirs_train") == [{"file_name": "a.jpg"}]
    labels = labels_of(MetadataCatalog.get("theirs_train"))
    assert labels.names == ("cat", "sky") and labels.thing_ids == (0,)


def test_a_broken_detectron2_is_said_and_does_no_harm(stub_detectron2, tmp_path, caplog, monkeypatch):
    monkeypatch.setattr(logging.getLogger("mask2former"), "propagate", True)
    (stub_detectron2 / "data.py").write_text("import no_such_package_y\n")
    assert loaded(tmp_path, "X = 1\n").X == 1
    assert [r.levelname for r in caplog.records] == ["WARNING"] and "no_such_package_y" in caplog.text


def test_models_can_be_built_from_its_registry(stub_detectron2, tmp_path):
    module = loaded(
        tmp_path,
        "from detectron2.config import get_cfg\n"
        "from detectron2.modeling import build_model\n"
        "from mask2former import add_maskformer2_config\n"
        "cfg = get_cfg()\n"
        "add_maskformer2_config(cfg)\n"
        "add_maskformer2_config(cfg)\n",
    )
    cfg = module.cfg
    assert cfg.MODEL.MASK_FORMER.NUM_OBJECT_QUERIES == 100 and cfg.MODEL.OTHER == 3 and cfg.OUTPUT_DIR == "x"
    cfg.MODEL.META_ARCHITECTURE = "MaskFormer"
    cfg.MODEL.BACKBONE.NAME = "timm/resnet10t"
    cfg.MODEL.BACKBONE.FREEZE_AT = 0
    head, mask_former = cfg.MODEL.SEM_SEG_HEAD, cfg.MODEL.MASK_FORMER
    head.NAME, head.PIXEL_DECODER_NAME, head.NUM_CLASSES = "MaskFormerHead", "MSDeformAttnPixelDecoder", 2
    head.IN_FEATURES = ["res2", "res3", "res4", "res5"]
    head.CONVS_DIM = head.MASK_DIM = mask_former.HIDDEN_DIM = 32
    head.TRANSFORMER_ENC_LAYERS = 1
    mask_former.TRANSFORMER_IN_FEATURE, mask_former.NUM_OBJECT_QUERIES = "multi_scale_pixel_decoder", 7
    model = module.build_model(cfg)
    assert model.sem_seg_head.predictor.query_feat.weight.shape == (7, 32)
    assert list(model.thing_ids) == [0]  # of detectron2's catalog


def test_the_published_package_for_video_has_its_names(tmp_path):
    from mask2former.data import MAPPERS, load_ytvis_json, register_ytvis_instances
    from mask2former.evaluation import VideoInstanceEvaluator

    module = loaded(
        tmp_path,
        "from detectron2.config import get_cfg\n"
        "from mask2former_video import YTVISDatasetMapper, YTVISEvaluator, add_maskformer2_video_config\n"
        "from mask2former_video import build_detection_train_loader, build_detection_test_loader, VideoMaskFormer\n"
        "from mask2former_video.data_video.dataset_mapper import CocoClipDatasetMapper\n"
        "from mask2former_video.data_video.datasets.ytvis import load_ytvis_json, register_ytvis_instances\n"
        "cfg = get_cfg(); add_maskformer2_video_config(cfg)\n"
        "assert cfg == get_cfg()\n",
    )
    assert module.YTVISEvaluator is VideoInstanceEvaluator and "ytvis" in MAPPERS
    assert module.load_ytvis_json is load_ytvis_json and module.register_ytvis_instances is register_ytvis_instances
    message = error_of(tmp_path, "from mask2former_video import YTVISMapper")
    assert "mask2former_video is not installed" in message and "Did you mean 'YTVISDatasetMapper'?" in message


class EditableFinder:
    """What an editable installation puts behind Python's own finders."""

    def __init__(self, folder):
        self.folder = folder

    def find_spec(self, fullname, path=None, target=None):
        if fullname == "mask2former_video":
            return importlib.util.spec_from_file_location(fullname, self.folder / fullname / "__init__.py")
        return None


@pytest.mark.parametrize("editable", [False, True])
def test_a_users_own_package_for_video_goes_first(tmp_path, monkeypatch, editable):
    (tmp_path / "mask2former_video").mkdir()
    (tmp_path / "mask2former_video" / "__init__.py").write_text("mine = 1\n")
    if editable:
        monkeypatch.setattr(sys, "meta_path", [*sys.meta_path, EditableFinder(tmp_path)])
    else:
        monkeypatch.syspath_prepend(tmp_path)
    for name in [name for name in sys.modules if name.partition(".")[0] == "mask2former_video"]:
        monkeypatch.delitem(sys.modules, name)
    try:
        assert loaded(tmp_path, "import detectron2.data\nfrom mask2former_video import mine\n").mine == 1
    finally:
        sys.modules.pop("mask2former_video", None)
