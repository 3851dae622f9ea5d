"""The embedded CLIP: open_clip's `CLIP` class with a small ResNet, from image-text pairs alone.

Two losses, both contrastive. The official one compares the attention-pooled image with sentences. The second
asks the dense features of the value path for the sentence somewhere in the image (a soft maximum over
places), so that the relevance map points; it too knows only which sentences go with which image.
"""

import functools
from pathlib import Path
from typing import Any

import numpy as np
import open_clip
import torch
import torch.nn.functional as F

from pipelines.foundation.pool import Sample, ScenePool
from pipelines.foundation.schedule import Training
from ppt.backbones.clip import build_embedded_clip
from ppt.backbones.clip_dense import resnet_cells
from ppt.scenes.cutouts import Cutout, load_cutouts
from ppt.scenes.sentences import KINDS, expressions, sample_scene, swapped
from ppt.seeding import generator

CONFIG = {
    "embed_dim": 256,
    "vision_cfg": {"image_size": 160, "layers": [1, 2, 2, 1], "width": 32},
    "text_cfg": {"context_length": 32, "vocab_size": 49408, "width": 160, "heads": 5, "layers": 3},
    "preprocess_cfg": {
        "mean": [0.48, 0.46, 0.41],
        "std": [0.27, 0.26, 0.28],
        "interpolation": "bicubic",
        "resize_mode": "squash",
    },
}
ONE, SEVERAL = 176, 240


@functools.cache
def _cutouts() -> list[Cutout]:
    return load_cutouts()


def make_sample(seed: int, several: bool) -> Sample:
    """One scene with the names in it, its sentences (text, name), and sentences known to be false of it."""
    rng = generator(0, "foundation/clip/several" if several else "foundation/clip/one", str(seed))
    cutouts = _cutouts()
    if several:
        objects = int(rng.integers(2, 6))
        scene = sample_scene(rng, cutouts, SEVERAL, SEVERAL, objects, twins=rng.random() < 0.35)
    else:
        index = seed % len(cutouts)
        scene = sample_scene(rng, [cutouts[index]], ONE, ONE, 1, twins=False)
    names = [o.name for o in scene.instances]
    said = [(e.text, names[e.target], e.kind) for e in expressions(rng, scene)]
    false = []
    for text, name, kind in said:
        turned = swapped(text) if kind in KINDS[3:] and names.count(name) == 1 else None
        if turned:
            false.append(turned)
    return {
        "image": scene.image,
        "names": sorted(set(names)),
        "said": [(t, n) for t, n, _ in said],
        "false": false,
    }


def to_batch(rng: np.random.Generator, samples: list[Sample], crop: int, pixels: int) -> torch.Tensor:
    """Random crops of (crop, crop), resized to (pixels, pixels), normalised: float (b, 3, pixels, pixels)."""
    side = samples[0]["image"].shape[0]
    images = []
    for sample in samples:
        top, left = rng.integers(0, side - crop + 1, 2)
        images.append(sample["image"][top : top + crop, left : left + crop])
    batch = torch.from_numpy(np.stack(images)).permute(0, 3, 1, 2).float().div_(255)
    if pixels != crop:
        batch = F.interpolate(batch, size=(pixels, pixels), mode="bilinear", antialias=True)
    gain = torch.from_numpy(rng.uniform(0.85, 1.15, (len(samples), 3, 1, 1)).astype(np.float32))
    mean = torch.tensor(CONFIG["preprocess_cfg"]["mean"]).view(1, 3, 1, 1)
    std = torch.tensor(CONFIG["preprocess_cfg"]["std"]).view(1, 3, 1, 1)
    return ((batch * gain).clamp(0, 1) - mean).div(std).contiguous(memory_format=torch.channels_last)


def coarse(visual: Any, images: torch.Tensor) -> torch.Tensor:
    """Features before the attention pool, (b, c, h / 32, w / 32)."""
    return visual.layer4(visual.layer3(visual.layer2(visual.layer1(visual.stem(images)))))


def pooled(visual: Any, x: torch.Tensor) -> torch.Tensor:
    """The official attention pool, its positions resized to the grid of `x`; (b, embed)."""
    pool = visual.attnpool
    original = pool.positional_embedding
    grid = round((original.shape[0] - 1) ** 0.5)
    if x.shape[-1] != grid:
        places = original[1:].T.reshape(1, -1, grid, grid)
        places = F.interpolate(places.float(), size=x.shape[-2:], mode="bicubic").flatten(2)[0].T
        original = torch.cat([original[:1], places.to(original.dtype)])
    tokens = x.flatten(2).permute(2, 0, 1)
    tokens = torch.cat([tokens.mean(0, keepdim=True), tokens]) + original[:, None].to(x.dtype)
    attended, _ = F.multi_head_attention_forward(
        tokens, tokens, tokens, tokens.shape[-1], pool.num_heads, q_proj_weight=pool.q_proj.weight,
        k_proj_weight=pool.k_proj.weight, v_proj_weight=pool.v_proj.weight, in_proj_weight=None,
        in_proj_bias=torch.cat([pool.q_proj.bias, pool.k_proj.bias, pool.v_proj.bias]),
        bias_k=None, bias_v=None, add_zero_attn=False, dropout_p=0.0,
        out_proj_weight=pool.c_proj.weight, out_proj_bias=pool.c_proj.bias,
        use_separate_proj_weight=True, training=True, need_weights=False,
    )  # fmt: skip
    return attended[0]


def said(model: Any, tokens: torch.Tensor) -> torch.Tensor:
    """open_clip's text tower on sentences cut to their longest, (t, n) int64 -> (t, embed); equal, and
    cheaper.
    """
    length = tokens.shape[1]
    x = model.token_embedding(tokens) + model.positional_embedding[:length]
    x = model.ln_final(model.transformer(x, attn_mask=model.attn_mask[:length, :length]))
    return x[torch.arange(len(tokens)), tokens.argmax(1)] @ model.text_projection


def contrast(similarity: torch.Tensor, true: torch.Tensor, false: torch.Tensor) -> torch.Tensor:
    """Softmax of each true (image, sentence) against the false sentences of its image, and against false
    images.

    similarity (b, t) logits; true, false (b, t) bool; pairs in neither are unknown and take no part.
    """
    total = similarity.new_zeros(())
    for logits, right, wrong in ((similarity, true, false), (similarity.T, true.T, false.T)):
        against = logits.masked_fill(~wrong, -1e4).logsumexp(1, keepdim=True)
        losses = F.softplus(against - logits)
        rows = right.any(1)
        if rows.any():
            total = total + ((losses * right).sum(1)[rows] / right.sum(1)[rows]).mean()
    return total


class Sentences:
    """Tokens of the sentences of one step, and which are true, false or unknown of each image."""

    def __init__(self, names: list[str]) -> None:
        self.names = names
        self._tokens: dict[str, torch.Tensor] = {}
        self._tokenise = open_clip.SimpleTokenizer(context_length=CONFIG["text_cfg"]["context_length"])

    def tokens(self, texts: list[str]) -> torch.Tensor:
        """(t, longest) int64, cut after the longest sentence."""
        for text in texts:
            if text not in self._tokens:
                self._tokens[text] = self._tokenise([text])[0]
        stacked = torch.stack([self._tokens[t] for t in texts])
        return stacked[:, : int((stacked != 0).sum(1).max())]

    def label(
        self, rng: np.random.Generator, samples: list[Sample], bank: int
    ) -> tuple[list[str], torch.Tensor, torch.Tensor]:
        """Texts with (b, t) bool truth and falsehood: `bank` names in some wording, then the samples' own
        sentences.
        """
        said_names = {n for s in samples for n in s["names"]}
        extra = [n for n in rng.permutation(self.names) if n not in said_names]
        listed = sorted(said_names) + extra[: max(0, bank - len(said_names))]
        texts = [_worded(rng, n) for n in listed]
        owners: list[tuple[int, str]] = [(-1, n) for n in listed]
        false_of: list[tuple[int, int]] = []
        for i, sample in enumerate(samples):
            said = sample["said"]
            for j in rng.permutation(len(said))[:2]:
                texts.append(said[j][0])
                owners.append((i, said[j][1]))
            if sample["false"]:
                false_of.append((i, len(texts)))
                texts.append(str(rng.choice(sample["false"])))
                owners.append((-2, ""))
        true = torch.zeros(len(samples), len(texts), dtype=torch.bool)
        false = torch.zeros_like(true)
        for i, sample in enumerate(samples):
            here = set(sample["names"])
            for t, (owner, name) in enumerate(owners):
                if owner == -2:
                    continue
                true[i, t] = owner == i or (owner == -1 and name in here)
                false[i, t] = name not in here
        for i, t in false_of:
            false[i, t] = True
        return texts, true, false


def _worded(rng: np.random.Generator, name: str) -> str:
    article = "an" if name[0] in "aeiou" else "a"
    wordings = (
        name,
        f"the {name}",
        f"{article} {name}",
        f"a photo of {article} {name}",
        f"a picture of the {name}",
    )
    return wordings[int(rng.choice(5, p=[0.25, 0.3, 0.3, 0.1, 0.05]))]


def train(folder: Path, minutes: float) -> None:
    """Train for `minutes`, resuming from folder/clip.pt; prints one line every 25 steps."""
    torch.manual_seed(0)
    model = build_embedded_clip(CONFIG)
    model.visual.to(memory_format=torch.channels_last)
    model.train()
    training = Training(model, folder / "clip.pt", minutes, rate=1.2e-3)
    rng = np.random.default_rng(training.steps)
    start = 1_000_000 + 200_000 * training.steps
    ones = ScenePool(functools.partial(make_sample, several=False), start, capacity=16000, reuse=4)
    several = ScenePool(functools.partial(make_sample, several=True), start, capacity=10000, reuse=4)
    sentences = Sentences(sorted({c.name for c in _cutouts()}))
    shown: list[list[float]] = []
    while training.progress < 1:
        pixels = 128 if training.progress < 0.5 else 160
        with torch.autocast("cpu", torch.bfloat16):
            samples = ones.draw(rng, 80)
            texts, true, false = sentences.label(rng, samples, bank=200)
            words = F.normalize(said(model, sentences.tokens(texts)).float(), dim=1)
            scale = model.logit_scale.exp().clamp(max=60)
            whole = F.normalize(
                pooled(model.visual, coarse(model.visual, to_batch(rng, samples, 160, pixels))).float(), dim=1
            )
            first = contrast(scale * whole @ words.T, true, false)
            best = (whole @ words.T).masked_fill(~(true | false), -9).argmax(1, keepdim=True)
            hits = true.gather(1, best)

            samples = several.draw(rng, 28)
            texts, true, false = sentences.label(rng, samples, bank=160)
            words = F.normalize(said(model, sentences.tokens(texts)).float(), dim=1)
            side = 176 if training.progress < 0.5 else 224
            features = resnet_cells(model.visual, to_batch(rng, samples, 224, side))
            pool: Any = model.visual.attnpool
            dense = F.normalize(pool.c_proj(pool.v_proj(features.flatten(2).transpose(1, 2))).float(), dim=2)
            maps = torch.einsum("bpd,td->btp", dense, words)
            somewhere = torch.logsumexp(25 * maps, 2).sub(np.log(maps.shape[2])).div(25)
            second = contrast(scale * somewhere, true, false)
            whole = F.normalize(pooled(model.visual, F.avg_pool2d(features, 2)).float(), dim=1)
            third = contrast(scale * whole @ words.T, true, false)
        training.step(first + second + 0.3 * third)
        shown.append([first.item(), second.item(), third.item(), hits.float().mean().item()])
        if training.steps % 25 == 0:
            mean = np.mean(shown[-25:], 0)
            print(f"clip step {training.steps} {training.progress:.3f} one {mean[0]:.3f} dense {mean[1]:.3f} "
                  f"whole {mean[2]:.3f} hit {mean[3]:.3f} scale {scale.item():.1f}", flush=True)  # fmt: skip
