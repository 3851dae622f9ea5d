"""Sentences for the objects of a scene: by name, colour, size, position or relation to another object.

Every sentence is true of exactly one object of its scene, by the geometry of the scene itself.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from ppt.scenes.compose import Instance, Scene, compose
from ppt.scenes.cutouts import COLOURS, Cutout

KINDS = ("name", "colour", "size", "position", "relation")
OPPOSITE = {
    "left": "right",
    "right": "left",
    "top": "bottom",
    "bottom": "top",
    "above": "below",
    "below": "above",
}
CLEARLY_APART = 0.18
CLEARLY_LARGER = 1.3


@dataclass(frozen=True)
class Expression:
    """A sentence, the index of the instance it names in its scene, and its kind (one of KINDS)."""

    text: str
    target: int
    kind: str


def _article(rng: np.random.Generator, phrase: str) -> str:
    draw = rng.random()
    if draw < 0.4:
        return f"the {phrase}"
    if draw < 0.75:
        return f"{'an' if phrase[0] in 'aeiou' else 'a'} {phrase}"
    return phrase


def name_sentence(rng: np.random.Generator, instance: Instance) -> str:
    """The object's name, with its colour now and then."""
    coloured = _coloured_name(instance)
    return _article(rng, coloured if coloured and rng.random() < 0.3 else instance.name)


def _coloured_name(instance: Instance) -> str | None:
    """ "red bus"; None for an object of no one colour, or whose name speaks of a colour already."""
    if instance.colour is None or set(instance.name.split()) & set(COLOURS):
        return None
    return f"{instance.colour} {instance.name}"


def _side(target: Instance, others: Sequence[Instance], width: int, height: int) -> str | None:
    """The side on which `target` lies clearly beyond all `others`: left, right, top or bottom."""
    x, y = target.centre_xy
    xs, ys = [o.centre_xy[0] for o in others], [o.centre_xy[1] for o in others]
    margins = {
        "left": (min(xs) - x) / width,
        "right": (x - max(xs)) / width,
        "top": (min(ys) - y) / height,
        "bottom": (y - max(ys)) / height,
    }
    side = max(margins, key=lambda k: margins[k])
    return side if margins[side] > CLEARLY_APART else None


def _position_sentence(rng: np.random.Generator, name: str, side: str) -> str:
    if rng.random() < 0.35:
        return f"{side} {name}"
    where = {"left": "on the left", "right": "on the right", "top": "at the top", "bottom": "at the bottom"}[
        side
    ]
    return f"the {name} {where}"


def expressions(rng: np.random.Generator, scene: Scene) -> list[Expression]:
    """Every sentence the scene supports, a few for each object; each names exactly one of its objects."""
    height, width = scene.image.shape[:2]
    found: list[Expression] = []
    for index, target in enumerate(scene.instances):
        twins = [o for i, o in enumerate(scene.instances) if i != index and o.name == target.name]
        others = [o for o in scene.instances if o.name != target.name]
        if not twins:
            found.append(Expression(name_sentence(rng, target), index, "name"))
            side = _side(target, others, width, height) if others else None
            if side and rng.random() < 0.3:
                found.append(Expression(_position_sentence(rng, target.name, side), index, "position"))
        else:
            side = _side(target, twins, width, height)
            if side:
                found.append(Expression(_position_sentence(rng, target.name, side), index, "position"))
            if all(target.size > CLEARLY_LARGER * t.size for t in twins):
                found.append(
                    Expression(f"the {rng.choice(['bigger', 'larger'])} {target.name}", index, "size")
                )
            if all(target.size * CLEARLY_LARGER < t.size for t in twins):
                found.append(Expression(f"the smaller {target.name}", index, "size"))
        coloured = _coloured_name(target)
        told_apart = all(t.colour and t.colour != target.colour for t in twins)
        if coloured and told_apart and (twins or rng.random() < 0.3):
            found.append(Expression(_article(rng, coloured), index, "colour"))
        relation = _relation(rng, index, scene)
        if relation and (twins or rng.random() < 0.3):
            found.append(Expression(relation, index, "relation"))
    return found


def _relation(rng: np.random.Generator, index: int, scene: Scene) -> str | None:
    """ "the dog below the bus": true of the target and of none of its twins, with an anchor there is only one
    of.
    """
    target = scene.instances[index]
    height, width = scene.image.shape[:2]
    names = [o.name for o in scene.instances]
    anchors = [o for o in scene.instances if names.count(o.name) == 1 and o.name != target.name]
    if not anchors:
        return None
    anchor = anchors[int(rng.integers(len(anchors)))]
    twins = [o for i, o in enumerate(scene.instances) if i != index and o.name == target.name]
    words = {
        "to the left of": lambda o: (anchor.centre_xy[0] - o.centre_xy[0]) / width,
        "to the right of": lambda o: (o.centre_xy[0] - anchor.centre_xy[0]) / width,
        "above": lambda o: (anchor.centre_xy[1] - o.centre_xy[1]) / height,
        "below": lambda o: (o.centre_xy[1] - anchor.centre_xy[1]) / height,
    }
    word = max(words, key=lambda w: words[w](target) - max([words[w](t) for t in twins], default=0.0))
    if words[word](target) < CLEARLY_APART or any(words[word](t) > 0.05 for t in twins):
        return None
    return f"the {target.name} {word} the {anchor.name}"


def swapped(text: str) -> str | None:
    """The same sentence with its first word of place turned round ("left" for "right"), or None when it has
    none.
    """
    words = text.split()
    for place, word in enumerate(words):
        if word in OPPOSITE:
            return " ".join([*words[:place], OPPOSITE[word], *words[place + 1 :]])
    return None


def sample_scene(
    rng: np.random.Generator, cutouts: Sequence[Cutout], height: int, width: int, objects: int, twins: bool
) -> Scene:
    """A scene of up to `objects` things with distinct names; with `twins`, two of them are of one name."""
    chosen: list[int] = []
    names: set[str] = set()
    while len(chosen) < max(1, objects - (1 if twins else 0)):
        index = int(rng.integers(len(cutouts)))
        if cutouts[index].name not in names:
            chosen.append(index)
            names.add(cutouts[index].name)
    recolour = [rng.random() < 0.08 for _ in chosen]
    if twins:
        alike = [i for i, c in enumerate(cutouts) if c.name == cutouts[chosen[0]].name]
        chosen.append(int(rng.choice(alike)))
        recolour.append(rng.random() < 0.35)
    order = rng.permutation(len(chosen))
    return compose(rng, cutouts, [chosen[i] for i in order], height, width, [recolour[i] for i in order])
