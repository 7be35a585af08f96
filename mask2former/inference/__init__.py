"""Models in use by other programs."""

from mask2former.inference.predictor import Predictor, checkpoint_config
from mask2former.inference.video import FrameResult, VideoPredictor

__all__ = ["FrameResult", "Predictor", "VideoPredictor", "checkpoint_config"]
