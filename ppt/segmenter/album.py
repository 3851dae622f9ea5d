"""What CLIP makes of images, made once an image as long as there is room for it."""

from collections.abc import Sequence

import torch
from jaxtyping import Float
from torch import Tensor

from ppt.segmenter.model import Looked, Segmenter

Taps = tuple[Float[Tensor, "1 _ _ _"], ...]


class Album:
    """Looks at images for a segmenter, and remembers up to `room` bytes of what was seen, on its device. With
    adapters there is nothing to remember: the words have a say in what CLIP sees.

    On CPU each image is looked at by itself, for the last bits of an image depend on the others of its batch:
    what is remembered is what would be seen anew.
    """

    def __init__(self, segmenter: Segmenter, room: int) -> None:
        self._segmenter, self._room = segmenter, room
        self._kept: dict[int, Taps] = {}

    def look(self, pixels: Float[Tensor, "u 3 h w"], numbers: Sequence[int]) -> Looked:
        """As `Segmenter.look`. numbers: of the images; the same number is the same image for good, and one
        below 0 is not seen again.
        """
        if not self._room or len(self._segmenter.adapters):
            return self._segmenter.look(pixels)
        new = [place for place, number in enumerate(numbers) if number not in self._kept]
        at_once = 1 if pixels.device.type == "cpu" else len(numbers)
        seen: dict[int, Taps] = {}
        for start in range(0, len(new), at_once):
            places = new[start : start + at_once]
            taps = self._segmenter.look(pixels[places]).taps
            seen |= {place: tuple(tap[i : i + 1] for tap in taps) for i, place in enumerate(places)}
        each = [seen.get(place) or self._kept[number] for place, number in enumerate(numbers)]
        for place, taps in seen.items():
            if numbers[place] >= 0:
                self._keep(numbers[place], taps)
        return Looked(pixels, None, tuple(torch.cat(level) for level in zip(*each, strict=True)))

    def _keep(self, number: int, taps: Taps) -> None:
        size = sum(tap.nbytes for tap in taps)
        if size <= self._room:
            self._room -= size
            self._kept[number] = tuple(tap.clone() for tap in taps)
