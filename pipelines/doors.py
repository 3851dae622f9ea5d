"""The configured CLIP and SAM, and what the segmenter is built on."""

from ppt.backbones.clip import Clip, Reading, load_clip
from ppt.backbones.clip_towers import StagedModel
from ppt.backbones.dino import load_dino
from ppt.backbones.sam import SamModel, load_sam
from ppt.config import Config


def open_clip_door(config: Config) -> Clip:
    """CLIP as the `clip` and `relevance` sections say. Raises WeightsError."""
    clip, how = config.clip, config.relevance
    reading = Reading(how.method, how.scales, how.mirror)
    return load_clip(clip.model, clip.weights, config.device, clip.size, clip.max_long, reading)


def open_sam_door(config: Config) -> SamModel:
    """SAM as the `sam` section says. Raises WeightsError."""
    return load_sam(config.sam.model, config.sam.weights, config.device, config.sam.prompt_batch)


def open_staged_door(config: Config) -> StagedModel:
    """The towers that the segmenter stands between: CLIP's own, or DINOv2's beside CLIP's text. Raises
    WeightsError.
    """
    clip, how = open_clip_door(config), config.segmenter
    return load_dino(how.dino, how.dino_weights, clip, config.device) if how.dino else clip
