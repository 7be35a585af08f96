"""An image in, its segmentation out: the whole way from a recipe or a checkpoint to results."""

from __future__ import annotations

import logging
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn

from mask2former.checkpoint import LoadReport, load_checkpoint_file
from mask2former.checkpoint.loading import apply_weights
from mask2former.checkpoint.zoo import ZOO_PREFIX, find_model
from mask2former.compat import load_user_modules
from mask2former.config import CfgNode, load_cfg
from mask2former.data.build import build_test_transform
from mask2former.data.catalog import DatasetCatalog, MetadataCatalog, labels_of
from mask2former.data.datasets.build import register_datasets
from mask2former.modeling import build_model
from mask2former.modeling.video import VideoMaskFormer
from mask2former.structures.labels import LabelSet, builtin_labels
from mask2former.utils.errors import UserError

logger = logging.getLogger(__name__)

# H W image size, K classes


def checkpoint_config(checkpoint: str | Path, opts: Sequence[Any] = ()) -> CfgNode:
    """The config that a checkpoint of this project carries, or the recipe of one from the zoo.

    Args:
        checkpoint: path, address or short name; MODEL.WEIGHTS is set to it.
        opts: flat list KEY, VALUE ... that has the last word.

    Raises:
        UserError: the file cannot be read safely, or carries no config and its recipe is not on this machine.
    """
    return _config_of(load_checkpoint_file(str(checkpoint)), checkpoint, opts)


class Predictor:
    """Segments single images.

    ``Predictor("output/model_final.pth")(image)`` needs nothing but the file: a checkpoint of this project carries its
    config and class names. ``Predictor("zoo://coco/panoptic/R50")`` takes a published checkpoint and its recipe in
    ``configs/``. With a config, MODEL.WEIGHTS names the file.

    cfg      the config in use
    labels   names, colours and ids of the classes: the checkpoint's, else those of the data set in the config
    model    in evaluation mode
    """

    def __init__(self, cfg_or_checkpoint: CfgNode | str | Path, device: str | torch.device | None = None):
        """
        Args:
            cfg_or_checkpoint: a config, which stays as it is, or the path, address or short name of a checkpoint.
            device: where the model runs; None: MODEL.DEVICE, or the CPU where that has no CUDA device.

        Raises:
            UserError: the weights cannot be read, or do not fill the model.
        """
        if isinstance(cfg_or_checkpoint, CfgNode):
            self.cfg = cfg_or_checkpoint.clone()
            self.cfg.defrost()
            contents = load_checkpoint_file(self.cfg.MODEL.WEIGHTS) if self.cfg.MODEL.WEIGHTS else {}
        else:
            contents = load_checkpoint_file(str(cfg_or_checkpoint))
            self.cfg = _config_of(contents, cfg_or_checkpoint)
        self.cfg.MODEL.DEVICE = str(device) if device is not None else _available(self.cfg.MODEL.DEVICE)
        self.labels = _labels(self.cfg, contents)
        _compare_normalization(self.cfg, contents)
        self.cfg.freeze()
        self.model = _build(self.cfg, self.labels)
        if self.cfg.MODEL.WEIGHTS:
            _check_complete(apply_weights(self.model, contents["model"], self.cfg.MODEL.WEIGHTS))
        else:
            logger.warning("MODEL.WEIGHTS is empty: the model predicts with random weights.")
        self.model.eval()
        self._prepare = build_test_transform(self.cfg)

    @torch.no_grad()
    def __call__(self, image: np.ndarray) -> dict:
        """The results for one image, on the model's device.

        Args:
            image: uint8 [H,W,3] RGB, whatever INPUT.FORMAT is.

        Returns:
            What the config enables: ``sem_seg`` scores [K,H,W]; ``panoptic_seg`` (ids [H,W] int32, segments_info);
            ``instances`` Instances, all at the size of the image.

        Raises:
            UserError: not such an image; the model is one of clips.
        """
        if isinstance(self.model, VideoMaskFormer):
            raise UserError(
                "The model follows objects through videos: use mask2former.inference.VideoPredictor, or demo.py with "
                "--video-input."
            )
        return self.model([self.model_input(image)])[0]

    def model_input(self, image: np.ndarray) -> dict:
        """An image as the model takes it, prepared as a test image of the data sets; errors as when called."""
        if not isinstance(image, np.ndarray) or image.dtype != np.uint8 or image.ndim != 3 or image.shape[2] != 3:
            found = f"{image.dtype} {list(image.shape)}" if isinstance(image, np.ndarray) else type(image).__name__
            raise UserError(
                f"Predictor takes an RGB image as a numpy array, uint8 [H,W,3], and got {found}. "
                "mask2former.data.reading.read_image(path, 'RGB') gives one for any image file."
            )
        if 0 in image.shape:
            raise UserError(f"Predictor got an image without pixels, {list(image.shape)}.")
        pixels = np.require(image, requirements="W")  # torch shares memory with writable arrays only
        return {"image": self._prepare(pixels), "height": image.shape[0], "width": image.shape[1]}


def _config_of(contents: dict, checkpoint: str | Path, opts: Sequence[Any] = ()) -> CfgNode:
    opts = ["MODEL.WEIGHTS", str(checkpoint), *opts]
    text = contents.get("config")
    if isinstance(text, str):
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder) / "config_in_checkpoint.yaml"  # the name that messages show
            path.write_text(text, encoding="utf-8")
            return load_cfg(path, opts)
    if str(checkpoint).startswith(ZOO_PREFIX):
        return load_cfg(_published_recipe(str(checkpoint)), opts)
    raise UserError(
        f"{checkpoint} carries weights only, no config: it was not written by this project. Give the recipe it "
        "was made with, and the file in MODEL.WEIGHTS (demo.py: --config-file FILE --opts MODEL.WEIGHTS PATH)."
    )


def _published_recipe(short_name: str) -> Path:
    model = find_model(short_name)
    if model.recipe_path is None:
        lacks = "an installed package comes without configs/; clone the repository" if model.recipe else "write one"
        raise UserError(
            f"{short_name} carries weights only, and its recipe ({model.recipe or 'none is published here'}) is not on "
            f"this machine: {lacks}, and give the recipe, with the short name in MODEL.WEIGHTS (demo.py: --config-file "
            f"FILE --opts MODEL.WEIGHTS {short_name})."
        )
    return model.recipe_path


def _available(device: str) -> str:
    if device.startswith("cuda") and not torch.cuda.is_available():
        logger.info("MODEL.DEVICE is %s, but there is no CUDA device: running on the CPU.", device)
        return "cpu"
    return device


def _labels(cfg: CfgNode, contents: dict) -> LabelSet:
    """The checkpoint's labels, else those of the first data set in the config.

    A NUM_CLASSES that the config gives must agree; one that it leaves out is set.
    """
    inside = contents.get("labels")
    labels = LabelSet.from_dict(inside) if inside is not None else _labels_of_datasets(cfg)
    if inside is not None:
        _check_same_classes(cfg, labels)
    if not cfg.given("MODEL.SEM_SEG_HEAD.NUM_CLASSES"):
        cfg.MODEL.SEM_SEG_HEAD.NUM_CLASSES = labels.num_classes
    num_classes = cfg.MODEL.SEM_SEG_HEAD.NUM_CLASSES
    if labels.num_classes != num_classes:
        if inside is not None:
            origin, remedy = f"the checkpoint {cfg.MODEL.WEIGHTS}", "Use the recipe that it was made with"
        else:
            origin, remedy = f"the data set {_dataset(cfg)!r}", "Name the data set of the weights in DATASETS.TEST"
        raise UserError(
            f"MODEL.SEM_SEG_HEAD.NUM_CLASSES is {num_classes}, but {origin} has {labels.num_classes} classes. "
            f"{remedy}, or set MODEL.SEM_SEG_HEAD.NUM_CLASSES to {labels.num_classes}."
        )
    return labels


def _check_same_classes(cfg: CfgNode, trained: LabelSet) -> None:
    """Refuse a config whose data set has other classes than the checkpoint, where these can be known here."""
    known = _labels_at_hand(cfg)
    difference = trained.difference(known, called=("checkpoint", "data set")) if known else ""
    if difference:
        raise UserError(
            f"{cfg.MODEL.WEIGHTS} was trained with other classes than those of {_dataset(cfg)!r} in DATASETS: "
            f"{difference}. Use the recipe that it was made with, correct the class list of the data set, or set "
            "DATASETS.TRAIN and DATASETS.TEST to [] for the checkpoint's own classes."
        )


def _labels_at_hand(cfg: CfgNode) -> LabelSet | None:
    """The labels of the config's data set; None where only user modules or files that are not here would tell them."""
    name = _dataset(cfg)
    if name is None:
        return None
    try:
        if name not in DatasetCatalog:
            register_datasets(cfg)
        if name in DatasetCatalog:
            return labels_of(MetadataCatalog.get(name))
    except UserError as error:  # prediction needs no data set: none may be on this machine
        logger.debug("the classes of %r are not compared with the checkpoint's: %s", name, error)
    return builtin_labels(name)


def _dataset(cfg: CfgNode) -> str | None:
    return next(iter([*cfg.DATASETS.TEST, *cfg.DATASETS.TRAIN]), None)


def _labels_of_datasets(cfg: CfgNode) -> LabelSet:
    name = _dataset(cfg)
    if name is None:
        logger.warning("Neither the weights nor DATASETS say what the classes are called: they are numbered.")
        return LabelSet(tuple(f"class {k}" for k in range(cfg.MODEL.SEM_SEG_HEAD.NUM_CLASSES)))
    load_user_modules(cfg.IMPORTS)
    register_datasets(cfg)
    return labels_of(MetadataCatalog.get(name))


def _build(cfg: CfgNode, labels: LabelSet) -> nn.Module:
    """The model, with the user modules where it cannot be built without them.

    Most register data sets, or even make them: nothing that prediction needs, or that may be on this machine.
    """
    try:
        return build_model(cfg, labels)
    except UserError:
        if not cfg.IMPORTS:
            raise
    load_user_modules(cfg.IMPORTS)
    return build_model(cfg, labels)


def _compare_normalization(cfg: CfgNode, contents: dict) -> None:
    """Say when the checkpoint was trained on images prepared in another way than the config's."""
    inside = contents.get("normalization")
    if not inside:
        return
    ours = {"mean": cfg.MODEL.PIXEL_MEAN, "std": cfg.MODEL.PIXEL_STD, "format": cfg.INPUT.FORMAT}
    for entry, key in (("mean", "MODEL.PIXEL_MEAN"), ("std", "MODEL.PIXEL_STD"), ("format", "INPUT.FORMAT")):
        theirs = inside.get(entry)
        if theirs is not None and list(theirs) != list(ours[entry]):
            logger.warning(
                "%s is %s, but the checkpoint was trained with %s. Expect worse results.", key, ours[entry], theirs
            )


def _check_complete(report: LoadReport) -> None:
    """Refuse a model that would predict with random weights in places; the criterion has no part in prediction."""
    lacking = [name for name in report.missing if not name.startswith("criterion.")]
    lacking += [str(r) for r in report.reshaped if not r.name.startswith("criterion.")]
    if lacking:
        more = f" and {len(lacking) - 5} more" if len(lacking) > 5 else ""
        raise UserError(
            f"{report.source} does not fill the model; these tensors are missing or have another shape: "
            f"{', '.join(lacking[:5])}{more}. Use the recipe the file was made with (NUM_CLASSES included), or correct "
            "MODEL.WEIGHTS."
        )
