"""Points to SAM, and which of its candidate masks is the one, and why.

SAM's own score prefers whatever has a clean outline: the whole background, or a part. So the candidates are
compared with the relevance map: the *agreement* of a mask is the correlation, over CLIP's grid, of how much
of each cell it covers with how relevant the cell is. It is 1 for a mask that is the map, falls for parts
(relevant cells left out) and for masks that spill (irrelevant cells covered), and has no threshold. Where a
sentence has several sets of points, each candidate is compared with the shape that its own set was about, and
how sure each set is counts too: the map cannot tell two things of one name apart, the sets can. How sure they
are may be asked again, once SAM has shown what each set is about.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Literal

import cv2
import numpy as np
from jaxtyping import Bool, Float, Float32

from ppt import rle
from ppt.types import ImageEmbedding, MaskCandidates, PointSet, PromptableModel, RelevanceMap

SAME = 0.5
"""IoU above which two masks show one thing."""
ChoiceRule = Literal["agreement", "predicted_iou"]
Look = Callable[[int, Float32[np.ndarray, "s gh gw"]], Sequence[float]]
"""(number of the sentence, what the best candidate of each set covers of CLIP's grid) -> how sure, each."""


@dataclass(frozen=True, eq=False)
class Prompt:
    """What SAM is asked, and the map on CLIP's grid that its candidates are to fit: of the sentence, or of
    the thing that these points are about.
    """

    points: PointSet
    map: RelevanceMap


@dataclass(frozen=True)
class Judgement:
    """One candidate seen against maps: agreement with the sentence's and fit with its prompt's in [-1, 1],
    relevance inside and contrast in [0, 1] and [-1, 1].

    `relevance` is the mean of the sentence's min-max normalised map under the mask, `contrast` that mean less
    the mean outside; `area` the share of the image, in [0, 1].
    """

    agreement: float
    fit: float
    relevance: float
    contrast: float
    area: float


@dataclass(frozen=True)
class Choice:
    """The chosen candidate's index, or None; and the reasons in words that the report shows."""

    index: int | None
    reasons: tuple[str, ...]


@dataclass(frozen=True, eq=False)
class Answer:
    """What came of one sentence: its sets of points, the candidates of all of them, and the choice.

    sets: as asked, the surest first. sure: how sure each is in the end, in [0, 1]. of_set: for each candidate
    the set it comes from.
    """

    sets: tuple[PointSet, ...]
    sure: tuple[float, ...]
    of_set: tuple[int, ...]
    candidates: MaskCandidates
    judged: tuple[Judgement, ...]
    choice: Choice

    @property
    def chosen(self) -> rle.Rle | None:
        """The chosen mask."""
        return None if self.choice.index is None else self.candidates.rles[self.choice.index]

    @property
    def sureness(self) -> float:
        """How sure the chosen mask is, in [0, 1]; 0 where none was chosen.

        The shares of all sets that found what it shows, with some candidate of IoU above SAME: sets that
        found one thing share what it has.
        """
        if self.choice.index is None:
            return 0.0
        chosen = self.candidates.rles[self.choice.index]
        same = {
            s
            for s, mask in zip(self.of_set, self.candidates.rles, strict=True)
            if rle.iou(mask, chosen) > SAME
        }
        return min(1.0, sum(self.sure[s] for s in sorted(same)))

    @property
    def points(self) -> PointSet:
        """The set of the chosen candidate; the surest one where none was chosen."""
        return self.sets[0 if self.choice.index is None else self.of_set[self.choice.index]]


@dataclass(frozen=True)
class Rules:
    """How to choose: by what, and the smallest and largest share of the image a mask may have."""

    by: ChoiceRule
    smallest: float
    largest: float


def ask(
    sam: PromptableModel,
    embed: Callable[[], ImageEmbedding],
    sentences: Sequence[Sequence[Prompt]],
    maps: Sequence[RelevanceMap],
    rules: Rules,
    look: Look | None = None,
) -> list[Answer]:
    """An answer for each sentence of one image; sentences[i], at least one prompt, goes with maps[i].

    `embed` is called once, and only if some set has a positive point: without one there is nothing to ask.
    With `look`, how sure the sets of a sentence are is asked again of what SAM made of them.
    Raises FloatingPointError or ValueError where SAM's masks or scores are not finite.
    """
    asked = [(i, s, prompt.points) for i, sets in enumerate(sentences) for s, prompt in enumerate(sets)]
    asked = [(i, s, points) for i, s, points in asked if (points.labels == 1).any()]
    found = _predicted(sam, embed, [points for *_, points in asked])
    answers: list[Answer] = []
    for i, (prompts, relevance) in enumerate(zip(sentences, maps, strict=True)):
        own = [(s, masks) for (j, s, _), masks in zip(asked, found, strict=True) if j == i]
        of_set = tuple(s for s, masks in own for _ in masks.rles)
        candidates = _pooled([masks for _, masks in own])
        judged = judge(candidates, relevance, [prompts[s].map for s in of_set])
        sure = [prompt.points.confidence for prompt in prompts] if len(prompts) > 1 else [1.0]
        if look is not None and of_set:
            sure = _looked(partial(look, i), len(prompts), of_set, candidates, judged, relevance, rules)
        choice = choose(candidates, judged, rules, [sure[s] for s in of_set])
        if not of_set:
            choice = Choice(None, prompts[0].points.reasons)
        sets = tuple(prompt.points for prompt in prompts)
        answers.append(Answer(sets, tuple(sure), of_set, candidates, tuple(judged), choice))
    return answers


def _predicted(
    sam: PromptableModel, embed: Callable[[], ImageEmbedding], prompts: Sequence[PointSet]
) -> list[MaskCandidates]:
    """The candidates of each prompt; equal points are asked once."""
    if not prompts:
        return []
    keys = [(points.xy.tobytes(), points.labels.tobytes()) for points in prompts]
    distinct = dict(zip(keys, prompts, strict=True))
    found = dict(zip(distinct, sam.predict(embed(), list(distinct.values())), strict=True))
    return [found[key] for key in keys]


def _looked(
    look: Callable[[Float32[np.ndarray, "s gh gw"]], Sequence[float]],
    count: int,
    of_set: Sequence[int],
    candidates: MaskCandidates,
    judged: Sequence[Judgement],
    relevance: RelevanceMap,
    rules: Rules,
) -> list[float]:
    """How sure each of the `count` sets is by its best candidate; 0 where it has none to take."""
    scores = _scores(candidates, judged, rules, np.ones(len(judged)))
    best: dict[int, int] = {}
    for i, s in enumerate(of_set):
        if scores[i] > scores[best[s]] if s in best else scores[i] > -np.inf:
            best[s] = i
    if not best:
        return [0.0] * count
    covers = np.stack(
        [coverage(rle.decode(candidates.rles[i]), relevance.values.shape) for i in best.values()]
    )
    sure = [0.0] * count
    for s, value in zip(best, look(covers), strict=True):
        sure[s] = float(value)
    return sure


def _pooled(found: Sequence[MaskCandidates]) -> MaskCandidates:
    none = np.zeros(0, np.float32)
    return MaskCandidates(
        tuple(rle for masks in found for rle in masks.rles),
        np.concatenate([none, *(masks.predicted_iou for masks in found)]),
        np.concatenate([none, *(masks.stability for masks in found)]),
    )


def coverage(mask: Bool[np.ndarray, "h w"], grid: tuple[int, int]) -> Float32[np.ndarray, "gh gw"]:
    """The share of each grid cell that a mask covers, (gh, gw) float32 in [0, 1]."""
    return cv2.resize(mask.astype(np.float32), (grid[1], grid[0]), interpolation=cv2.INTER_AREA)


def judge(
    candidates: MaskCandidates, relevance: RelevanceMap, fits: Sequence[RelevanceMap] | None = None
) -> list[Judgement]:
    """Each candidate against the sentence's map and against its prompt's, the sentence's by default, in
    order. A flat map, or a mask that covers nothing, agrees with 0.
    """
    judged: list[Judgement] = []
    for i, mask_rle in enumerate(candidates.rles):
        area = rle.area(mask_rle) / (relevance.height * relevance.width)
        covered = coverage(rle.decode(mask_rle), relevance.values.shape).astype(np.float64)
        agreement, inside, contrast = _against(covered, relevance)
        own = fits[i] if fits is not None else relevance
        fit = agreement if own is relevance else _against(covered, own)[0]
        judged.append(Judgement(agreement, fit, inside, contrast, area))
    return judged


def agreement(mask: rle.Rle, relevance: RelevanceMap) -> float:
    """Of a mask with a map, in [-1, 1]; 0 for a flat map, or a mask that covers nothing."""
    covered = coverage(rle.decode(mask), relevance.values.shape).astype(np.float64)
    return _against(covered, relevance)[0]


def _against(covered: Float[np.ndarray, "gh gw"], found: RelevanceMap) -> tuple[float, float, float]:
    """Agreement, relevance and contrast."""
    stretched = found.normalised()
    if stretched is None or not covered.any():
        return 0.0, 0.0, 0.0
    values = stretched.values.astype(np.float64)
    inside = float((covered * values).sum() / max(covered.sum(), 1e-9))
    outside = float(((1 - covered) * values).sum() / max((1 - covered).sum(), 1e-9))
    return _correlation(covered, values), inside, inside - outside


def _correlation(a: np.ndarray, b: np.ndarray) -> float:
    a, b = a - a.mean(), b - b.mean()
    scale = float(np.sqrt((a * a).sum() * (b * b).sum()))
    return 0.0 if scale < 1e-12 else float(np.clip((a * b).sum() / scale, -1, 1))


def choose(
    candidates: MaskCandidates,
    judged: Sequence[Judgement],
    rules: Rules,
    sureness: Sequence[float] | None = None,
) -> Choice:
    """The candidate to keep. Masks outside [smallest, largest] of the image's area are never taken.

    Under "agreement" the score is fit x predicted IoU x stability, so a mask must fit the map and be one that
    SAM itself believes in; under "predicted_iou" SAM's own score alone. Either is multiplied by how sure the
    candidate's set of points is, in [0, 1], where that is given. Ties go to the first candidate.
    """
    allowed = [i for i, j in enumerate(judged) if rules.smallest <= j.area <= rules.largest]
    if not allowed:
        why = "empty" if all(j.area < rules.smallest for j in judged) else "background_sized"
        return Choice(None, (f"no_candidate:{why}",))
    sure = np.ones(len(judged)) if sureness is None else np.asarray(sureness, np.float64)
    own = np.clip(candidates.predicted_iou, 0, 1) * sure
    by_sam = max(allowed, key=lambda i: float(own[i]))
    if rules.by == "predicted_iou":
        return Choice(by_sam, ("chosen:predicted_iou",))
    scores = _scores(candidates, judged, rules, sure)
    best = max(allowed, key=lambda i: float(scores[i]))
    if judged[best].fit <= 0:
        return Choice(None, ("no_candidate:disagrees_with_relevance",))
    return Choice(best, ("chosen:agreement", *(("against_predicted_iou",) if by_sam != best else ())))


def _scores(
    candidates: MaskCandidates,
    judged: Sequence[Judgement],
    rules: Rules,
    sure: Float[np.ndarray, " c"],
) -> Float[np.ndarray, " c"]:
    """By rules.by; -1 for what does not fit at all, minus infinity for what may not be taken."""
    area, fit = np.array([j.area for j in judged]), np.array([j.fit for j in judged])
    own = np.clip(candidates.predicted_iou, 0, 1).astype(np.float64) * sure
    if rules.by == "agreement":
        own = np.where(fit > 0, fit * own * np.clip(candidates.stability, 0, 1), -1.0)
    return np.where((area >= rules.smallest) & (area <= rules.largest), own, -np.inf)
