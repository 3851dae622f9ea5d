"""Stage 5: the segmenter, trained on the pseudo-labels alone.

    ppt segmenter CONFIG.yaml --output DIR

or, on several GPUs, a batch for each at every step:

    torchrun --nproc-per-node 8 -m ppt segmenter CONFIG.yaml --output DIR

Reads DIR/records, DIR/labels and the images of the pairs that may teach. Writes DIR/segmenter: what was
learned (`shards/00000.safetensors`, without CLIP's own weights or SAM's), a preview of it on fixed images,
and `training/` with checkpoint and log. A label teaches by its weight, and not at all where that is 0; an
image that some sentence of another split is about teaches nothing. Labels of images of one thing teach as
mosaics, too. No truth is read.
"""

import sys
from dataclasses import fields

import numpy as np
import torch
from jaxtyping import Bool

from pipelines import stage
from pipelines.doors import open_sam_door, open_staged_door
from pipelines.s5_segmenter.lessons import Pseudo, held_out, taught
from pipelines.together import peers_of, trained
from ppt.backbones.weights import resolve_device
from ppt.checkpoint import Checkpoints
from ppt.config import Config, ConfigError
from ppt.manifest import Manifest
from ppt.peers import Peers
from ppt.places import Place
from ppt.report import preview
from ppt.seeding import torch_generator
from ppt.segmenter.learner import Learner, Weights
from ppt.segmenter.model import Design, Segmenter
from ppt.segmenter.noise import Measures
from ppt.segmenter.reader import SHARD, Reader, rows_and_tensors
from ppt.shard import Shard
from ppt.store import Artifact
from ppt.training import Held, Plan, train

STAGE = "segmenter"
PREVIEWED = 12
POWER = 0.9
"""Of the polynomial along which the learning rate falls."""
ASKED = 200
"""Labels held out, at most, that are asked about at a checkpoint."""
PLAIN = "a an the of to in on at is are and with that which it its , . ; : ! ?"
"""What says nothing of a picture, and is never hidden from the segmenter to be guessed."""


def run(
    config: Config, output: Place, fresh: bool = False, name: str = STAGE, labels: str = "labels"
) -> stage.Summary:
    """Make DIR/<name> complete, of the labels in DIR/<labels>. Raises ConfigError, StaleArtifact,
    WeightsError, DivergenceError, ValueError where no label teaches, and the errors of what it reads.
    """
    with peers_of(config) as peers:
        return _run(config, output, fresh, name, labels, peers)


def _run(config: Config, output: Place, fresh: bool, name: str, labels: str, peers: Peers) -> stage.Summary:
    clip, size = open_staged_door(config), config.segmenter.size
    pointing = config.segmenter.decoder == "point"
    sam = open_sam_door(config, output) if pointing else None
    if config.segmenter.dino and config.segmenter.prior:
        raise ConfigError("segmenter.prior: DINOv2 shares no space with words; set it to false (got true)")
    if size % clip.stride:
        raise ConfigError(f"segmenter.size: {clip.stride} pixels are a cell of this tower (got {size})")
    if pointing:
        _check_pointing(config)
    if peers.count > 1 and config.segmenter.noise.correction:
        raise ConfigError(
            "segmenter.noise.correction: each process would see another curve; expected 0 where several train"
            f" (got {config.segmenter.noise.correction})"
        )
    records, given = Artifact.open(output / "records"), Artifact.open(output / labels)
    sections = config.sections("clip", "segmenter", *(["sam"] if pointing else []))
    # Whatever the number of processes: who goes on must take as many batches a step.
    sections["segmenter"]["accumulate"] *= peers.count
    manifest = Manifest(
        STAGE,
        schema_version=1,
        config=sections,
        inputs={"records": records.fingerprint, "labels": given.fingerprint},
        weights={"clip": clip.weights_sha256, **({"sam": sam.weights_sha256} if sam else {})},
        seed=config.seed,
    )
    folder = output / name / "training"

    def learned() -> tuple[Segmenter, Pseudo]:
        teaching, held = held_out(taught(config, records, given), config.segmenter.held_out)
        lessons = Pseudo(config, output, clip, teaching)
        asked = Pseudo(config, output, clip, held) if held else None
        if config.segmenter.mosaics and not lessons.makes_mosaics and peers.first:
            print(
                "segmenter: fewer than two images of one thing have a label, so there are no mosaics: "
                "only the labels teach places; mark such pairs with source object_centric",
                file=sys.stderr,
            )
        return _train(config, lessons, asked, folder, manifest.fingerprint, peers), lessons

    def keep(shard: Shard, found: tuple[Segmenter, Pseudo]) -> None:
        segmenter, lessons = found
        _preview(folder.parent, Reader(clip, segmenter, size, sam), config, output, lessons)
        shard.write(*rows_and_tensors(segmenter, size))

    plan = {SHARD: ["segmenter"]}
    return trained(peers, output / name, manifest, plan, fresh, learned, keep, config.keep_trained)


def _check_pointing(config: Config) -> None:
    """Raises ConfigError where what the decoder point decides by would be taught by nothing."""
    how = config.segmenter
    untaught = [("point", True), ("choice", how.things > 1)]
    for name, needed in untaught:
        if needed and not getattr(how.losses, name):
            raise ConfigError(
                f"segmenter.losses.{name}: the decoder point, asking for {how.things} things, learns by it;"
                " expected a weight above 0 (got 0.0)"
            )


def design(config: Config) -> Design:
    """The parts that the `segmenter` section names; several things have only designs that point."""
    settings = config.segmenter.model_dump()
    if settings["decoder"] != "point":
        settings["things"] = 1
    return Design(**{field.name: settings[field.name] for field in fields(Design)})


def _train(
    config: Config, lessons: Pseudo, asked: Pseudo | None, folder: Place, fingerprint: str, peers: Peers
) -> Segmenter:
    """Train to the end, resuming where it stopped; the averaged weights, in evaluation mode. With labels that
    are held out to be `asked` about, those that agree best with them, and no longer than that gains.
    """
    settings = config.segmenter
    folder.mkdir(parents=True, exist_ok=True)
    clip, device = lessons.clip, resolve_device(config.device)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(torch_generator(settings.seed, "segmenter", "network").initial_seed())
        plain = frozenset(clip.tokens([PLAIN])[0].tolist())
        learner = Learner(
            Segmenter(clip.towers(), design(config)),
            Weights(**settings.losses.model_dump()),
            Measures(**settings.noise.model_dump()),
            settings.steps * settings.accumulate * peers.count,
            plain,
            room=int(settings.memory_gib * 2**30),
            together=settings.accumulate * peers.count,
        ).to(device)

    def losses_of(step: int) -> dict[str, torch.Tensor]:
        rng = torch_generator(settings.seed, "segmenter/step", str(step))
        return learner(lessons.drawn(step).to(device), step, rng)

    plan = Plan(
        settings.steps,
        settings.rate,
        save_every=settings.save_every,
        accumulate=settings.accumulate,
        power=POWER,
        bfloat16=settings.bfloat16,
    )
    held = None
    if asked is not None:
        held = Held(
            lambda state: _masks(learner, state, asked),
            lambda masks: _agreement(masks, asked),
            settings.patience,
            settings.settled,
        )
    log = folder / "log.jsonl"
    checkpoints = Checkpoints(folder, fingerprint)
    state = train(learner, losses_of, plan, checkpoints, log, held=held, peers=peers, items_of=lessons.named)
    learner.load_state_dict(state)
    return learner.segmenter.eval().requires_grad_(False)


@torch.inference_mode()
def _masks(learner: Learner, state: dict[str, torch.Tensor], held: Pseudo) -> Bool[torch.Tensor, "n h w"]:
    """What a segmenter with the weights in `state` makes of what is held out, on the logits' grid."""
    device = next(learner.parameters()).device
    segmenter = Segmenter(learner.segmenter.towers, learner.segmenter.design).to(device).eval()
    prefix = "segmenter."
    segmenter.load_state_dict({n.removeprefix(prefix): v for n, v in state.items() if n.startswith(prefix)})
    asked = (held.lessons([lesson]).to(device) for lesson in held.all(ASKED))
    masks = [(segmenter(one.pixels, one.tokens).logits[:, 0] > 0).cpu() for one in asked]
    return torch.cat(masks) if masks else torch.zeros(0, 1, 1, dtype=torch.bool)


def _agreement(masks: Bool[torch.Tensor, "n h w"], held: Pseudo) -> float:
    """Their mean IoU with the labels held out, by the labels' weights."""
    found, weights = list[float](), list[float]()
    for mask, lesson in zip(masks, held.all(ASKED), strict=True):
        one = held.lessons([lesson]).on((int(mask.shape[0]), int(mask.shape[1])))
        true = one.covered[0, 0] > 0.5
        found.append(float((mask & true).sum() / (mask | true).sum().clamp(min=1)))
        weights.append(lesson.believed)
    return float(np.average(found, weights=weights)) if found else 0.0


def _preview(folder: Place, reader: Reader, config: Config, output: Place, lessons: Pseudo) -> None:
    """preview.png: what it makes of the first images that taught it."""
    tiles, captions = [], []
    for image in lessons.taught[:PREVIEWED]:
        label = image.labels[0]
        pixels = stage.picture(config, output, label.image, image.sha256)
        if pixels is not None:
            (found,) = reader(pixels, [label.text])
            tiles.append(preview.overlay_mask(pixels, found.mask))
            captions.append(label.text)
    stage.leave_preview(folder, tiles, captions)
