"""Beside detectron2, and without it: user modules written against its names, and its catalogs and registries."""

from mask2former.compat.config import add_maskformer2_config
from mask2former.compat.detectron2_registry import register_in_detectron2
from mask2former.compat.importer import install_aliases, real_detectron2
from mask2former.compat.user_modules import load_user_modules

__all__ = [
    "add_maskformer2_config",
    "install_aliases",
    "load_user_modules",
    "real_detectron2",
    "register_in_detectron2",
]
