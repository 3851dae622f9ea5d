"""What the generator reads: images on CLIP's grid, sentences as words, in one padded batch."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Bool, Float, Float32
from torch import Tensor

from ppt.types import DenseFeatures, RelevanceMap

WORDS = 40
"""Words of a sentence that are read; later ones are left out."""


@dataclass(frozen=True, eq=False)
class Example:
    """One sentence and one image: CLIP's dense features, the sentence's map on the same grid, and CLIP's
    vector of each word read alone, (t, d) float32 of L2 norm 1.
    """

    features: DenseFeatures
    relevance: RelevanceMap
    words: Float32[np.ndarray, "t d"]


@dataclass(frozen=True)
class Scene:
    """b pairs on h x w cells and t words, padded.

    cells: CLIP's dense features. relevance: the sentence's map, min-max normalised, in [0, 1]. xy: centres of
    the cells, in [0, 1] of the image's width and height. words: CLIP's vector of every word, in the space of
    the cells. has_cell, has_word: False for padding, where the others are 0.
    """

    cells: Float[Tensor, "b h w d"]
    relevance: Float[Tensor, "b h w"]
    xy: Float[Tensor, "b h w 2"]
    has_cell: Bool[Tensor, "b h w"]
    words: Float[Tensor, "b t d"]
    has_word: Bool[Tensor, "b t"]

    @property
    def grid(self) -> tuple[int, int]:
        """(h, w)."""
        return self.has_cell.shape[1], self.has_cell.shape[2]


def words_of(text: str) -> list[str]:
    """The words of a sentence, at most WORDS, lower-case and without punctuation around them; at least one,
    which may be empty.
    """
    words = [word.strip(".,;:!?\"'()[]").lower() for word in text.split()]
    return [word for word in words if word][:WORDS] or [""]


def collate(examples: Sequence[Example], device: torch.device | str = "cpu") -> Scene:
    """A batch of examples, padded to the largest grid and the longest sentence.

    A map that is no evidence is read as zero everywhere.
    """
    rows = max(example.relevance.values.shape[0] for example in examples)
    columns = max(example.relevance.values.shape[1] for example in examples)
    length = max(len(example.words) for example in examples)
    count, dimension = len(examples), examples[0].words.shape[1]
    cells = torch.zeros(count, rows, columns, dimension)
    relevance, xy = torch.zeros(count, rows, columns), torch.zeros(count, rows, columns, 2)
    words = torch.zeros(count, length, dimension)
    has_cell = torch.zeros(count, rows, columns, dtype=torch.bool)
    has_word = torch.zeros(count, length, dtype=torch.bool)
    for i, example in enumerate(examples):
        high, wide = example.relevance.values.shape
        stretched = example.relevance.normalised()
        cells[i, :high, :wide] = torch.from_numpy(example.features.values)
        if stretched is not None:
            relevance[i, :high, :wide] = torch.from_numpy(stretched.values)
        xy[i, :high, :wide] = torch.from_numpy(cell_centres(high, wide))
        words[i, : len(example.words)] = torch.from_numpy(example.words)
        has_cell[i, :high, :wide], has_word[i, : len(example.words)] = True, True
    return Scene(*(part.to(device) for part in (cells, relevance, xy, has_cell, words, has_word)))


def names_mixed(
    words: Float[Tensor, "b t d"], names: Sequence[Bool[np.ndarray, " _"]], rng: np.random.Generator
) -> Float[Tensor, "b t d"]:
    """The words with those that name things exchanged at random among the sentences: identities for training.

    names[i]: which words of sentence i. What a name lights up stays: a judge taught so goes by that, and not
    by the few names that it was taught with.
    """
    pair = [i for i, named in enumerate(names) for _ in np.flatnonzero(named)]
    word = [int(t) for named in names for t in np.flatnonzero(named)]
    if not pair:
        return words
    turned = rng.permutation(len(pair))
    mixed = words.clone()
    mixed[pair, word] = words[np.array(pair)[turned], np.array(word)[turned]]
    return mixed


def cell_centres(rows: int, columns: int) -> Float32[np.ndarray, "h w 2"]:
    """(x, y) of every cell's centre in [0, 1] of the image."""
    y, x = np.indices((rows, columns), dtype=np.float32)
    return np.stack([(x + 0.5) / columns, (y + 0.5) / rows], 2)
