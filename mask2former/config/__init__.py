"""Recipes: every key with its default (`defaults.py`), and how files and the command line change them (`node.py`)."""

from mask2former.config.node import CfgNode, get_cfg, load_cfg

__all__ = ["CfgNode", "get_cfg", "load_cfg"]
