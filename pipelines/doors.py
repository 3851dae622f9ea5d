"""The configured CLIP and SAM, what the segmenter is built on, and a trained one."""

from dataclasses import replace

from ppt.backbones.clip import Clip, Reading, load_clip
from ppt.backbones.clip_towers import StagedModel
from ppt.backbones.dino import load_dino
from ppt.backbones.kept import KeptEmbeddings
from ppt.backbones.sam import SamModel, load_sam
from ppt.config import Config
from ppt.places import Place, on_disk
from ppt.segmenter.reader import Reader, read_segmenter
from ppt.store import Artifact, ArtifactError

EMBEDDINGS = "embeddings"
"""Folder of a run."""


def open_clip_door(config: Config) -> Clip:
    """CLIP as the `clip` and `relevance` sections say. Raises WeightsError."""
    clip, how = config.clip, config.relevance
    reading = Reading(how.method, how.scales, how.mirror)
    return load_clip(clip.model, clip.weights, config.device, clip.size, clip.max_long, reading)


def open_sam_door(config: Config, output: Place | None = None) -> SamModel:
    """SAM as the `sam` section says; what it makes of images is kept in DIR/embeddings of the run in the
    folder `output`, as far as `embeddings_gib` allows. Raises WeightsError.
    """
    limit, kept = int(config.embeddings_gib * 2**30), None
    if limit and output is not None:
        kept = KeptEmbeddings(on_disk(output / EMBEDDINGS, "embeddings_gib"), limit)
    sam = config.sam
    return load_sam(sam.model, sam.weights, config.device, sam.prompt_batch, kept, sam.bfloat16, sam.compile)


def open_staged_door(config: Config) -> StagedModel:
    """The towers that the segmenter stands between: CLIP's own, or DINOv2's beside CLIP's text. Raises
    WeightsError.
    """
    clip, how = open_clip_door(config), config.segmenter
    return load_dino(how.dino, how.dino_weights, clip, config.device) if how.dino else clip


def open_reader(
    config: Config, segmenter: Artifact, clip: StagedModel | None = None, output: Place | None = None
) -> Reader:
    """A trained segmenter, with the configured SAM where it points. clip: None opens the configured one.
    output: as of `open_sam_door`.

    Raises ArtifactError, WeightsError.
    """
    reader = read_segmenter(segmenter, clip or open_staged_door(config))
    if reader.segmenter.design.decoder != "point":
        return replace(reader, threshold=config.predictions.threshold)
    sam = open_sam_door(config, output)
    if segmenter.manifest.weights["sam"] != sam.weights_sha256:
        raise ArtifactError(f"{segmenter.folder}: made for another SAM; name that one in sam.weights")
    return replace(reader, sam=sam)
