"""What networks of the literature's size take, side by side: random weights, the same inputs, in turns.

    ppt benchmark networks CONFIG.yaml --output DIR

All of `clip.model`, in float32 and without its weights. The segmenters of `benchmark.systems` read
`benchmark.batch` images with a sentence each, and the same sentences about one image, beside CLIP's image
tower alone. For the relevance map of a further sentence about an image that is known, ours reads the
sentence; a loop around CLIP Surgery, and Grad-CAM, look at the image again. Writes
DIR/benchmark/networks.json and networks.md.
"""

import json
from collections.abc import Callable, Iterator, Mapping
from itertools import count, cycle, islice
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np
import torch
from open_clip.modified_resnet import ModifiedResNet
from open_clip.transform import PreprocessCfg
from torch import Tensor

from pipelines.benchmark.segmenter import settings
from pipelines.benchmark.turns import Seconds, in_turns, ratio
from pipelines.s5_segmenter import design
from ppt.backbones.clip import Clip, Reading, own_side, staged, untrained_clip
from ppt.backbones.clip_towers import STAGES
from ppt.backbones.weights import resolve_device
from ppt.config import Config
from ppt.durable import write_atomic
from ppt.relevance import relevance_maps
from ppt.segmenter.model import Segmenter

ENCODER, OURS = "CLIP's image tower alone", "ours"
SENTENCES = (
    "dog",
    "the man in the red shirt on the left",
    "second zebra from the right",
    "a woman holding an umbrella behind the counter",
    "the largest bowl",
    "white car that is parked beside the bus, partly hidden by it",
    "kid without a hat",
    "top left slice of pizza",
)
PHOTO = 480, 640


def networks(config: Config, output: Path) -> str:
    """Run the races; returns the tables as Markdown."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(config.seed)
        network = untrained_clip(config.clip.model).eval().requires_grad_(False)
        network = network.to(resolve_device(config.device))
        apart, together = _segmenters(config, network)
        relevance = _relevance(config, network)
    races = {"of_as_many_images": apart, "of_one_image": together, "relevance": relevance}
    kept = {"threads": torch.get_num_threads(), **races}
    table = _markdown(config, apart, together, relevance)
    folder = output / "benchmark"
    folder.mkdir(parents=True, exist_ok=True)
    write_atomic(folder / "networks.json", (json.dumps(kept, indent=1) + "\n").encode())
    write_atomic(folder / "networks.md", table.encode())
    return table


def _segmenters(config: Config, network: Any) -> tuple[Seconds, Seconds]:
    """Seconds for a batch: of sentences about an image each, and about one image."""
    many, side, towers = config.benchmark.batch, config.segmenter.size, staged(network)
    tokens = _clip(config, network).tokens([*islice(cycle(SENTENCES), many)])
    pixels = torch.randn(many, 3, side, side, device=tokens.device)
    one = torch.zeros(many, dtype=torch.long, device=tokens.device)

    def encoder(images: Tensor) -> None:
        state = towers.image.begin(images)
        for stage in range(STAGES):
            state = towers.image.advance(state, stage)
        _done(state.values)

    apart: dict[str, Callable[[], None]] = {ENCODER: lambda: encoder(pixels)}
    together: dict[str, Callable[[], None]] = {ENCODER: lambda: encoder(pixels[:1])}
    for name in config.benchmark.systems:
        own = config.model_copy(update={"segmenter": settings(config, name)})
        model = Segmenter(towers, design(own)).to(tokens.device).eval().requires_grad_(False)
        apart[name] = lambda model=model: _done(model(pixels, tokens).logits)
        together[name] = lambda model=model: _done(model(pixels[:1], tokens, one).logits)
    with torch.inference_mode():
        first, second = (_warm(race, config.benchmark.rounds) for race in (apart, together))
    return first, second


def _relevance(config: Config, network: Any) -> Seconds:
    """Seconds for the map of a further sentence about an image."""
    own = own_side(network.visual)
    ours = _clip(config, network, Reading(config.relevance.method))
    surgery = _clip(config, network, Reading("surgery"))
    photo = np.random.default_rng(config.seed).integers(0, 256, (*PHOTO, 3), dtype=np.uint8)
    square = torch.randn(1, 3, own, own, device=resolve_device(config.device))
    known, [empty] = ours.encode_image(photo), ours.encode_texts([""])[0]
    tokens, numbers = ours.tokens([SENTENCES[0]]), count()

    def read() -> None:
        text = f"{SENTENCES[1]} {next(numbers)}"  # another each time: one that was read is remembered
        relevance_maps(known, ours.encode_texts([text])[0], empty, "empty_text")

    def operated() -> None:
        with torch.inference_mode():
            text = network.encode_text(tokens, normalize=True)
        relevance_maps(surgery.encode_image(photo), text.cpu().numpy(), empty, "empty_text")

    contestants = {
        OURS: read,
        "CLIP Surgery, the image anew": operated,
        "Grad-CAM": lambda: _done(grad_cam(network, square, tokens)),
    }
    return _warm(contestants, config.benchmark.rounds)


def grad_cam(network: Any, pixels: Tensor, tokens: Tensor) -> Tensor:
    """Where the cosine of an image (1, 3, h, w) and a sentence (1, n) comes from: (gh, gw), not negative.

    Grad-CAM (Selvaraju et al., ICCV 2017, section 3) on a ResNet's last layer, or on what a ViT's last block
    normalises first: the gradient goes back to there and no further.
    """
    visual = network.visual
    resnet = isinstance(visual, ModifiedResNet)
    layer = visual.layer4 if resnet else visual.transformer.resblocks[-1].ln_1
    seen: list[Tensor] = []

    def from_here(module: Any, arguments: Any, made: Tensor) -> Tensor:
        seen.append(made.detach().requires_grad_())
        return seen[-1]

    hook = layer.register_forward_hook(from_here)
    try:
        with torch.no_grad():
            sentence = network.encode_text(tokens, normalize=True)
        with torch.enable_grad():
            cosine = (network.encode_image(pixels, normalize=True) * sentence).sum()
            [slope] = torch.autograd.grad(cosine, seen)
    finally:
        hook.remove()
    values = seen[0].detach()
    if not resnet:  # without the class token; channels first
        side = pixels.shape[-2] // visual.patch_size[0], pixels.shape[-1] // visual.patch_size[1]
        values, slope = (each[:, 1:].transpose(1, 2).unflatten(2, side) for each in (values, slope))
    return (values * slope.mean((2, 3), keepdim=True)).sum(1)[0].clamp(min=0)


def _clip(config: Config, network: Any, reading: Reading | None = None) -> Clip:
    """The network at the config's size, as `load_clip` would have it, but without weights."""
    own = own_side(network.visual)
    short = config.clip.size or own
    return Clip(network, PreprocessCfg(size=own), short, 4 * short, "0" * 64, {}, reading)


def _done(made: Tensor) -> None:
    """Wait until a GPU has made it."""
    if made.is_cuda:
        torch.cuda.synchronize()


def _warm(contestants: Mapping[str, Callable[[], None]], rounds: int) -> Seconds:
    """In turns, after a round that does not count."""
    return {name: own[1:] for name, own in in_turns(contestants, rounds + 1)[0].items()}


def _markdown(config: Config, apart: Seconds, together: Seconds, relevance: Seconds) -> str:
    model, many, side = config.clip.model, config.benchmark.batch, config.segmenter.size
    return "\n".join(
        [
            *_rows(f"{many} sentences, an image each, {model} at {side}", apart, ENCODER, many),
            *_rows(f"{many} sentences about one image", together, ENCODER, many),
            *_rows(f"the map of a further sentence, {model}", relevance, OURS, 1),
        ]
    )


def _rows(title: str, seconds: Seconds, beside: str, many: int) -> Iterator[str]:
    yield f"| {title} | ms a sentence | times {beside} |"
    yield "| --- | ---: | ---: |"
    for name, own in seconds.items():
        yield f"| {name} | {1000 * median(own) / many:.1f} | {ratio(own, seconds[beside]):.2f} |"
    yield ""
