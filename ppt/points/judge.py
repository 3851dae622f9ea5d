"""Which of several things a sentence means: the reading of names, places, sizes and relations.

A map of the whole sentence cannot tell two things of one name apart, and lights up the bus in "the dog left
of the bus" too. So each thing is described by where it lies, how large it is, how relevant it is to the
sentence and to every word of it; and it is *compared*: with the image's middle, and with its rivals, the
other things weighted by how relevant they are. What a word of place asks of these comparisons is linear
("left": less x than the rivals), which is why little data teaches it; a transformer over things and words
adds the rest. The design is ours: of PPT (Dai & Yang, CVPR 2024) no more is known than that a query has a
confidence.
"""

from dataclasses import replace

import torch
from jaxtyping import Float
from torch import Tensor, nn

from ppt.points.reading import COMPARISONS, DESCRIPTION, RELEVANT, Reading
from ppt.points.scene import WORDS

LINEAR = 4.0
"""Scale of the linear part, whose comparisons are small numbers."""
PRIOR = 10.0
"""What full relevance adds to a logit before anything is learned: CLIP knows more names than the pairs that
teach the judge have.
"""


class Panel(nn.Module):
    """Several judges that begin differently and are taught alike: `Reading` -> the mean of their log-shares.

    They err differently, so that their mean errs less (deep ensembles, Lakshminarayanan et al., NeurIPS
    2017). common: what the words' vectors have in common, which says nothing and is taken away.
    """

    common: Float[Tensor, " d"]

    def __init__(self, dimension: int, judges: int = 3) -> None:
        super().__init__()
        self.register_buffer("common", torch.zeros(dimension))
        self.judges = nn.ModuleList([Judge(dimension) for _ in range(judges)])

    def each(self, reading: Reading) -> Float[Tensor, "j b s"]:
        """The log-shares of every judge; padding has about -1e4."""
        words = (reading.words - self.common) * reading.has_word[..., None]
        reading = replace(reading, words=words)
        return torch.stack([judge(reading) for judge in self.judges]).log_softmax(-1)

    def forward(self, reading: Reading) -> Float[Tensor, "b s"]:
        """Logits to be compared: which thing the sentence means."""
        return self.each(reading).mean(0)


class Judge(nn.Module):
    """`Reading` -> logits to be compared: which thing the sentence means.

    dimension: of CLIP's joint space. identity: what of a word's vector is kept; few numbers, so that words of
    place are learned and not the names of the things that taught them.
    """

    def __init__(
        self, dimension: int, width: int = 64, identity: int = 32, layers: int = 2, heads: int = 4
    ) -> None:
        super().__init__()
        self.describe = nn.Sequential(
            nn.Linear(DESCRIPTION + COMPARISONS, width), nn.GELU(), nn.Linear(width, width)
        )
        self.word = nn.Sequential(nn.Linear(dimension, identity), nn.Linear(identity, width))
        self.order = nn.Parameter(0.1 * torch.randn(WORDS, width))
        self.lit = nn.Sequential(nn.Linear(2, width), nn.GELU(), nn.Linear(width, width))
        self.weigh = nn.Linear(dimension, 1)
        self.wanted = nn.Sequential(nn.Linear(dimension, width), nn.GELU(), nn.Linear(width, COMPARISONS))
        self.layers = nn.ModuleList([_Layer(width, heads) for _ in range(layers)])
        self.score = nn.Sequential(nn.LayerNorm(width), nn.Linear(width, 1))

    def forward(self, reading: Reading) -> Float[Tensor, "b s"]:
        """Padding has the logit -1e4."""
        there, has_word = reading.there, reading.has_word
        words = 3 * reading.words
        share = self.weigh(words)[..., 0].masked_fill(~has_word, -torch.inf).softmax(-1)
        wanted = self.wanted(torch.einsum("bt,btd->bd", share, words))
        x = self.describe(torch.cat([reading.alone, 4 * reading.compared], -1))
        best = reading.lit.masked_fill(~there[..., None], -1e4).amax(1, keepdim=True)
        known = self.word(words) + self.order[: words.shape[1]]
        memory = known[:, None] + self.lit(torch.stack([reading.lit, reading.lit - best], -1))
        for layer in self.layers:
            x = layer(x, ~there, memory, ~has_word)
        relevant = reading.alone[..., RELEVANT : RELEVANT + 2].mean(-1)
        logits = self.score(x)[..., 0] + LINEAR * torch.einsum("bsc,bc->bs", reading.compared, wanted)
        return (logits + PRIOR * relevant).masked_fill(~there, -1e4)


class _Layer(nn.Module):
    """Things look at each other, then each at the words as they are lit by it; normalised before each."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.norms = nn.ModuleList([nn.LayerNorm(width) for _ in range(3)])
        self.things = nn.MultiheadAttention(width, heads, batch_first=True)
        self.words = nn.MultiheadAttention(width, heads, batch_first=True)
        self.rest = nn.Sequential(nn.Linear(width, 2 * width), nn.GELU(), nn.Linear(2 * width, width))

    def forward(self, x: Tensor, no_thing: Tensor, memory: Tensor, no_word: Tensor) -> Float[Tensor, "b s w"]:
        y = self.norms[0](x)
        x = x + self.things(y, y, y, key_padding_mask=no_thing, need_weights=False)[0]
        y, rows = self.norms[1](x).flatten(0, 1)[:, None], memory.flatten(0, 1)
        unread = no_word[:, None].expand(-1, x.shape[1], -1).flatten(0, 1)
        x = x + self.words(y, rows, rows, key_padding_mask=unread, need_weights=False)[0].view_as(x)
        return x + self.rest(self.norms[2](x))
