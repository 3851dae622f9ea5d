"""Stage 6, two runs: whether this one's masks differ from another's, and by how much.

    ppt evaluate CONFIG.yaml --output DIR --against OTHER

Reads DIR/evaluate and OTHER/evaluate, and compares them on the sentences that both have. Writes
DIR/evaluate/against.json: mIoU, oIoU and Prec@0.5 here and there, their difference with a 95 % interval over
images, and how often the sign flips; of the labels and, where both have one, of the segmenter.
"""

from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass
from typing import Any

from ppt.config import Config
from ppt.durable import ensure, json_lines, json_object, parsed_lines
from ppt.metrics import Conventions, Score, bootstrap
from ppt.metrics.conventions import differences
from ppt.places import Place
from ppt.seeding import generator
from ppt.store import Artifact, ArtifactError

NAME = "against.json"
TITLES = {"miou": "mIoU", "oiou": "oIoU", "prec@0.5": "Prec@0.5"}


@dataclass(frozen=True)
class Side:
    """One run's evaluation: its artifact, the content of metrics.json, and the scores by whose they are."""

    artifact: Artifact
    metrics: dict[str, Any]
    scores: dict[str, dict[str, Score]]


def run(config: Config, output: Place, other: Place) -> list[str]:
    """Write DIR/evaluate/against.json; returns it as a small table, line by line.

    Raises ArtifactError where a run is not evaluated, by another version of this stage, under other
    conventions, or has nothing in common with this one.
    """
    here, there = _read(output / "evaluate"), _read(other / "evaluate")
    found: dict[str, Any] = {
        "other": other.resolve().name,
        "fingerprint": there.artifact.fingerprint,
        "resamples": bootstrap.DRAWN,
    }
    for of in ("labels", "segmenter"):
        if of in here.scores and of in there.scores:
            _refuse_other_conventions(of, here, there)
            found[of] = _compared(config, of, here, there)
    ensure(here.artifact.folder / NAME, json_lines([found]))
    return _table(found)


def _read(folder: Place) -> Side:
    artifact = Artifact.open(folder)
    metrics = json_object(folder / "metrics.json")
    if metrics is None or artifact.manifest.schema_version < 2:
        raise ArtifactError(f"{folder}: lacks what a comparison needs; run `ppt evaluate --fresh` there")
    scores = {"labels": _by_id(artifact.rows())}
    if "segmenter" in metrics:
        scores["segmenter"] = _by_id(parsed_lines((folder / "segmenter.jsonl").read_bytes()))
    return Side(artifact, metrics, scores)


def _by_id(rows: Iterable[dict[str, Any]]) -> dict[str, Score]:
    return {row["id"]: Score.from_json(row) for row in rows}


def _refuse_other_conventions(of: str, here: Side, there: Side) -> None:
    mine, theirs = (
        (side.metrics if of == "labels" else side.metrics[of])["conventions"] for side in (here, there)
    )
    changes = differences(mine, theirs)
    if changes:
        raise ArtifactError(
            "\n  ".join(
                [
                    f"{there.artifact.folder}: the {of} were judged under other conventions than in"
                    f" {here.artifact.folder}; evaluate both alike. What differs:",
                    *changes,
                ]
            )
        )


def _compared(config: Config, of: str, here: Side, there: Side) -> dict[str, Any]:
    """The measures of whose masks, over the sentences that both runs have."""
    mine, theirs = here.scores[of], there.scores[of]
    shared = sorted(mine.keys() & theirs.keys())
    if not shared:
        raise ArtifactError(f"{there.artifact.folder}: has no sentence that {here.artifact.folder} has")
    for id in shared:
        images = {one.image for one in (mine[id], theirs[id])} - {""}
        if len(images) > 1:
            raise ArtifactError(f"{there.artifact.folder}: {id!r} is about another image there than here")
    ours, others = [mine[id] for id in shared], [theirs[id] for id in shared]
    conventions = Conventions(config.evaluate.empty, config.evaluate.at_least)
    rng = generator(config.seed, "evaluate", f"against/{of}")
    over = bootstrap.paired(ours, others, conventions, rng)
    return {
        "n": len(shared),
        "images": bootstrap.images(ours, others),
        "only_here": len(mine.keys() - theirs.keys()),
        "only_there": len(theirs.keys() - mine.keys()),
        **{name: {key: round(v, 6) for key, v in asdict(one).items()} for name, one in over.items()},
    }


def _table(found: Mapping[str, Any]) -> list[str]:
    """Fractions, as everywhere; the last column is a share of the resamples."""
    lines: list[str] = []
    for of in ("labels", "segmenter"):
        if of not in found:
            continue
        own = found[of]
        lines += [
            f"{of}, here and in {found['other']}: {own['n']} samples of {own['images']} images in both;"
            f" {own['only_here']} only here, {own['only_there']} only there",
            f"  {'':<8} {'here':>7} {'there':>7} {'differ':>7}  {'95 % interval':<18} sign flips",
        ]
        for name, title in TITLES.items():
            one = own[name]
            interval = f"[{one['low']:+.3f}, {one['high']:+.3f}]"
            lines.append(
                f"  {title:<8} {one['here']:>7.3f} {one['there']:>7.3f} {one['difference']:>+7.3f} "
                f" {interval:<18} {100 * one['flips']:.1f} %"
            )
    return lines
