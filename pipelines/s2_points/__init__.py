"""Stage 2: the point generator, trained on the pairs alone.

    ppt points CONFIG.yaml --output DIR

Reads DIR/records, DIR/relevance and the images of the pairs that may teach. Writes DIR/points: the averaged
weights (`shards/00000.safetensors`), a preview, and beside them what they were trained on and how:
`object_centric/`, `mosaics/`, `referring_<round>/` (artifacts of their own), and `training/` (checkpoint,
log, weights of every round).

or, on several GPUs, a batch for each at every step:

    torchrun --nproc-per-node 8 -m ppt points CONFIG.yaml --output DIR

Object-centric pairs and mosaics of them teach first, then the referring pairs too, whose pseudo-masks the
generator makes anew `refreshes` times. No truth is read.
"""

from typing import Any

from torch import Tensor

from pipelines import stage
from pipelines.doors import open_clip_door, open_sam_door
from pipelines.s2_points import own_pairs
from pipelines.s2_points.training import Workshop, train_generator
from pipelines.together import peers_of, trained
from ppt.config import Config
from ppt.durable import write_atomic
from ppt.manifest import Manifest
from ppt.peers import Peers
from ppt.places import Place
from ppt.points.weights import SHARD, rows_and_tensors
from ppt.shard import Shard
from ppt.store import Artifact

STAGE = own_pairs.STAGE


def run(config: Config, output: Place, fresh: bool = False, name: str = STAGE) -> stage.Summary:
    """Make DIR/<name> complete; lessons of object-centric pairs and mosaics lie in DIR/points whatever the
    name. Raises StaleArtifact, WeightsError, DivergenceError, and the errors of what it reads.
    """
    with peers_of(config) as peers:
        return _run(config, output, fresh, name, peers)


def _run(config: Config, output: Place, fresh: bool, name: str, peers: Peers) -> stage.Summary:
    clip, sam = open_clip_door(config), open_sam_door(config, output)
    inputs = {name: Artifact.open(output / name).fingerprint for name in ("records", "relevance")}
    sections = config.sections("clip", "relevance", "points", "generator", "sam", "masks")
    # Whatever the number of processes: who goes on must take as many batches a step.
    sections["generator"]["accumulate"] *= peers.count
    manifest = Manifest(
        STAGE,
        schema_version=1,
        config=sections,
        inputs=inputs,
        weights={"clip": clip.weights_sha256, "sam": sam.weights_sha256},
        seed=config.seed,
    )
    shop = Workshop(config, output, output / name, clip, sam, manifest.fingerprint, peers)

    def keep(shard: Shard, found: tuple[dict[str, Any], dict[str, Tensor]]) -> None:
        # The shard last: where it is there, this is not done again.
        for sheet in sorted(shop.folder.glob("points_*.png"))[-1:]:
            write_atomic(shop.home / "preview.png", sheet.read_bytes())
        shard.write(*rows_and_tensors(*found))

    plan = {SHARD: ["generator"]}
    return trained(
        peers, shop.home, manifest, plan, fresh, lambda: train_generator(shop), keep, config.keep_trained
    )
