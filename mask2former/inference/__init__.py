"""Models in use by other programs."""

from mask2former.inference.predictor import Predictor, checkpoint_config

__all__ = ["Predictor", "checkpoint_config"]
