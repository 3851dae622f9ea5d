"""What is exported of all that there is: by band and score; and the split of each."""

import math
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

from ppt import rle
from ppt.exports import names
from ppt.exports.items import ExportError, Labelled, Mask, Picture, Tally
from ppt.quality import Band


@dataclass(frozen=True)
class Selection:
    """Items of `bands` whose score lies in [least, most], both included.

    splits: (name, share) of each split, the shares together 1, by which images are parted by their content;
    with none the pairs keep their own. Raises ExportError.
    """

    bands: tuple[Band, ...] = ("keep", "review")
    least: float = 0.0
    most: float = 1.0
    splits: tuple[tuple[str, float], ...] = ()

    def __post_init__(self) -> None:
        if not 0 <= self.least <= self.most <= 1:
            raise ExportError(
                f"--least and --most must keep 0 <= least <= most <= 1, got {self.least} and {self.most}"
            )
        named = [name for name, _ in self.splits]
        if len(set(named)) < len(named):
            raise ExportError(f"--split: a name is given twice: {', '.join(named)}")
        for name, share in self.splits:
            if names.split(name) != name:
                raise ExportError(
                    f"--split: {name!r} is no name; use lower-case letters, digits, underscores"
                )
            if not 0 < share <= 1:
                raise ExportError(f"--split: the share of {name} must lie above 0 and up to 1, got {share}")
        whole = math.fsum(share for _, share in self.splits)
        if self.splits and abs(whole - 1) > 1e-6:
            raise ExportError(f"--split: the shares must be 1 together, got {whole:g}")

    def split_of(self, item: Labelled) -> str:
        """The split of an item's image, or the pair's own. An image stays where it is when others come."""
        if not self.splits:
            return names.split(item.record.pair.split)
        place, end = names.share(item.record.sha256), 0.0
        for name, share in self.splits:
            end += share
            if place < end:
                return name
        return self.splits[-1][0]

    def reason_against(self, item: Labelled) -> str | None:
        """Why an item is left out; None where it is not."""
        if item.band not in self.bands:
            return f"band {item.band}"
        if item.score < self.least:
            return f"score below {self.least:g}"
        if item.score > self.most:
            return f"score above {self.most:g}"
        if item.mask is None:
            return "no mask"
        return None if rle.area(item.mask) else "empty mask"


def select(groups: Iterable[Sequence[Labelled]], selection: Selection, tally: Tally) -> Iterator[Picture]:
    """Groups of items, each of one image, as pictures: one for each split that the image's items are in.

    What is left out is counted; an image with nothing left is a picture without masks.
    """
    for group in groups:
        by_split: dict[str, list[Labelled]] = {}
        for item in group:
            by_split.setdefault(selection.split_of(item), []).append(item)
            if not selection.splits and names.split(item.record.pair.split) != item.record.pair.split:
                told = item.record.pair.split
                renamed = f"sentences of split {told!r:.60}" if told else "sentences of no split"
                tally.notes[f"{renamed} are in {names.split(told)}"] += 1
        if len(by_split) > 1:
            tally.notes["images are in several splits, by different sentences; --split parts by image"] += 1
        for split, items in by_split.items():
            masks: list[Mask] = []
            for item in items:
                reason = selection.reason_against(item)
                if reason is None and item.mask is not None:
                    masks.append(Mask(item, item.mask))
                else:
                    tally.leave(reason or "no mask")
            yield Picture(items[0].record, split, tuple(masks))
