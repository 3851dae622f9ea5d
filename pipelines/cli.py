"""The front door: `ppt ...`. Parses, calls a stage, prints; nothing else.

Exit codes: 0 done, 1 failed, 2 wrong usage or config (nothing was done), 3 done with skipped items, 130 / 143
stopped by SIGINT / SIGTERM (the same command resumes).
"""

import json
import os
import signal
from collections.abc import Iterable
from pathlib import Path
from typing import Annotated

import typer

from pipelines import exits, export_command, report_command, review, weights
from pipelines.destination import destination
from pipelines.exits import leave
from pipelines.shipped import config_path
from ppt import __version__
from ppt.config import Config, ConfigError, load_config
from ppt.places import Place, on_disk, place

app = typer.Typer(add_completion=False, no_args_is_help=True, pretty_exceptions_enable=False, help=__doc__)
app.add_typer(weights.app, name="weights")
app.add_typer(review.app, name="review")

data = typer.Typer(no_args_is_help=True, help="Look at data before anything is made of them.")
app.add_typer(data, name="data")

DEMO_DATA = Path(__file__).parents[1] / "ppt" / "scenes" / "demo"

ConfigFile = Annotated[
    str,
    typer.Argument(
        metavar="CONFIG.yaml", help="A YAML file, or the name of a shipped one; several, the last first: A+B."
    ),
]
Output = Annotated[str, typer.Option(help="Folder or URL of the run; each stage has its own folder inside.")]
Overrides = Annotated[
    list[str], typer.Option("--set", metavar="SECTION.KEY=VALUE", help="Change one setting.")
]
Fresh = Annotated[bool, typer.Option("--fresh", help="Start over instead of resuming.")]
Pairs = Annotated[str | None, typer.Option(help="JSONL or CSV: image, text, optional id, split, source.")]
Truth = Annotated[str | None, typer.Option(help="JSONL: id, segmentation. Only evaluation opens it.")]


@app.command()
def demo(output: Output = "outputs/demo", fresh: Fresh = False) -> None:
    """Embedded weights and data through every stage that exists, then the report."""
    config = _config("demo", [], f"{DEMO_DATA}/pairs.jsonl", f"{DEMO_DATA}/truth.jsonl", None)
    folder = destination(output, config)
    skipped = _walk(config, folder, fresh)
    report_command.leave_report(folder)
    leave(skipped)


@app.command()
def run(
    config: ConfigFile,
    pairs: Pairs = None,
    truth: Truth = None,
    output: Output = "outputs/run",
    overrides: Overrides = [],  # noqa: B006 -- typer copies it
    limit: Annotated[int | None, typer.Option(min=1, help="Only the first N pairs.")] = None,
    drop_leaks: Annotated[
        bool, typer.Option("--drop-leaks", help="Do not teach about images that are evaluated on.")
    ] = False,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Print the plan and stop.")] = False,
    fresh: Fresh = False,
) -> None:
    """All stages in order on your pairs, then the report."""
    asked = [*overrides, "records.drop_leaks=true"] if drop_leaks else overrides
    settings = _config(config, asked, pairs, truth, limit)
    if settings.records.pairs is None and not settings.records.sources:
        raise ConfigError("records.pairs: name the file of pairs with --pairs FILE (got None)")
    folder = destination(output, settings)
    if dry_run:
        from pipelines.plan import describe

        for line in describe(settings, folder):
            typer.echo(line)
        return
    skipped = _walk(settings, folder, fresh)
    report_command.leave_report(folder)
    leave(skipped)


def _stage_command(name: str, help: str) -> None:
    def command(
        config: ConfigFile,
        output: Output,
        overrides: Overrides = [],  # noqa: B006 -- typer copies it
        pairs: Pairs = None,
        truth: Truth = None,
        fresh: Fresh = False,
    ) -> None:
        from pipelines.run import STAGES

        settings = _config(config, overrides, pairs, truth, None)
        summary = STAGES[name](settings, destination(output, settings), fresh)
        typer.echo(summary.line())
        leave(summary.skipped, summary.items)

    app.command(name=name, help=help)(command)


_stage_command("records", "Stage 0: check the pairs and their images; lock the truth away.")
_stage_command("relevance", "Stage 1: CLIP features and a relevance map for every sentence.")
_stage_command("points", "Stage 2: train the point generator on the pairs alone.")
_stage_command("masks", "Stage 3: points from the maps, SAM's candidate masks, and the choice among them.")


@app.command()
def labels(
    config: ConfigFile,
    output: Output,
    overrides: Overrides = [],  # noqa: B006 -- typer copies it
    review: Annotated[
        str | None,
        typer.Option("--review", metavar="FILE", help="What a person decided; kept as DIR/review.jsonl."),
    ] = None,
    believe: Annotated[
        str | None,
        typer.Option("--believe", metavar="FILE", help="A quality.jsonl; its quality is then the weight."),
    ] = None,
    pairs: Pairs = None,
    truth: Truth = None,
    fresh: Fresh = False,
) -> None:
    """Stage 4: pseudo-labels with weight, scores and reasons."""
    from pipelines import s4_labels

    settings = _config(config, overrides, pairs, truth, None)
    folder = destination(output, settings)
    changed = [s4_labels.take_review(place(review), folder)] if review else []
    changed += [s4_labels.take_quality(place(believe), folder)] if believe else []
    summary = s4_labels.run(settings, folder, fresh or any(changed))
    typer.echo(summary.line())
    leave(summary.skipped, summary.items)


_stage_command("segmenter", "Stage 5: train a segmenter on the labels alone.")
_stage_command("predictions", "Stage 5, in use: the segmenter's mask for every pair.")
_stage_command("views", "Whether labels still fit their words when CLIP looks in other ways.")
_stage_command("quality", "How far each label is to be believed, told without truth: keep, review or drop.")


@app.command()
def evaluate(
    config: ConfigFile,
    output: Output,
    overrides: Overrides = [],  # noqa: B006 -- typer copies it
    pairs: Pairs = None,
    truth: Truth = None,
    nta: Annotated[bool, typer.Option("--nta", help="Measure non-target activation, too.")] = False,
    against: Annotated[
        str | None, typer.Option(metavar="OTHER", help="Compare with another run, image by image.")
    ] = None,
    fresh: Fresh = False,
) -> None:
    """Stage 6: score labels and segmenter against the truth, which no other stage opens."""
    from pipelines import s6_against
    from pipelines.s6_evaluate import run

    asked = [*overrides, "evaluate.nta=true"] if nta else overrides
    settings = _config(config, asked, pairs, truth, None)
    folder = destination(output, settings)
    found = run(settings, folder, fresh)
    for line in (found.line(), *found.splits()):
        typer.echo(line)
    for line in s6_against.run(settings, folder, place(against)) if against else ():
        typer.echo(line)
    leave(found.skipped, found.items)


@app.command()
def predict(
    weights: Annotated[str, typer.Option(help="The folder or URL of a run, or of its segmenter.")],
    image: Annotated[str, typer.Option(help="An image, a folder of images, or a file of pairs.")],
    text: Annotated[str | None, typer.Option(help="What to look for; pairs have their own.")] = None,
    output: Output = "outputs/predict",
    overrides: Overrides = [],  # noqa: B006 -- typer copies it
    fresh: Fresh = False,
) -> None:
    """Ask a trained segmenter: the mask of a sentence in your own images."""
    from pipelines import predict

    segmenter = predict.segmenter_of(place(weights))
    named = place(image)
    if named.suffix.lower() in predict.PAIRS:
        config = predict.config_of(segmenter, [*overrides, f"records.pairs={json.dumps(str(named))}"])
        summaries = predict.pairs(segmenter, config, destination(output, config), fresh)
        for summary in summaries:
            typer.echo(summary.line())
        return leave(sum(summary.skipped for summary in summaries), summaries[-1].items)
    if not (text and text.strip()):
        raise ConfigError("--text: say what to look for in the image (got nothing)")
    made: list[bool] = []
    config = predict.config_of(segmenter, overrides)
    folder = destination(output, config)
    for line, read in predict.pictures(segmenter, config, on_disk(named, "--image"), text, folder):
        typer.echo(line)
        made.append(read)
    leave(made.count(False), made.count(True))


app.command()(report_command.report)
app.command()(export_command.export)


@app.command()
def benchmark(
    what: Annotated[
        str, typer.Argument(metavar="points|segmenter|speed|train|networks", help="What to compare.")
    ],
    config: ConfigFile,
    output: Output = "outputs/benchmark",
    overrides: Overrides = [],  # noqa: B006 -- typer copies it
    pairs: Pairs = f"{DEMO_DATA}/pairs.jsonl",
    truth: Truth = f"{DEMO_DATA}/truth.jsonl",
) -> None:
    """Compare ways to make points, or segmenters, against the truth; our speed with a naive loop's; what
    steps of training take, and networks. On the demo's data unless told else.
    """
    folder = on_disk(place(output), "--output of a benchmark")
    from pipelines.benchmark.networks import networks
    from pipelines.benchmark.points import points
    from pipelines.benchmark.segmenter import segmenter
    from pipelines.benchmark.speed import speed
    from pipelines.benchmark.train import train

    comparisons = {
        "points": points, "segmenter": segmenter, "speed": speed, "train": train, "networks": networks
    }  # fmt: skip
    if what not in comparisons:
        raise ConfigError(f"benchmark: expected {', '.join(comparisons)}, got {what!r}")
    typer.echo(comparisons[what](_config(config, overrides, pairs, truth, None), folder))


@data.command()
def check(
    config: ConfigFile,
    overrides: Overrides = [],  # noqa: B006 -- typer copies it
    pairs: Pairs = None,
    truth: Truth = None,
    output: Annotated[str, typer.Option(help="The picture of some pairs.")] = "outputs/data.png",
) -> None:
    """What a config's data hold, beside what is published of them: counts, missing files, texts, pictures."""
    from pipelines.data import check

    picture = on_disk(place(output), "--output of data check")
    said = list(check(_config(config, overrides, pairs, truth, None), picture))
    for line, well in said:
        typer.echo(line if well else f"WRONG {line}")
    if not all(well for _, well in said):
        raise typer.Exit(1)


@app.command()
def doctor(output: Output = "outputs") -> None:
    """Versions, devices, weights, the torch/torchvision pair, free disk: what is wrong and how to mend it."""
    from pipelines.doctor import examine

    findings = list(examine(place(output)))
    for finding in findings:
        typer.echo(f"{'ok  ' if finding.well else 'WRONG'} {finding.what}")
        if not finding.well:
            typer.echo(f"      {finding.remedy}")
    if not all(finding.well for finding in findings):
        raise typer.Exit(1)


def _version(asked: bool) -> None:
    if asked:
        typer.echo(f"ppt {__version__}")
        raise typer.Exit


@app.callback()
def _options(
    version: Annotated[bool, typer.Option("--version", callback=_version, is_eager=True)] = False,
) -> None:
    """Pixel masks from image-text pairs alone."""


def _config(
    name: str, overrides: Iterable[str], pairs: str | None, truth: str | None, limit: int | None
) -> Config:
    given = {"pairs": pairs, "truth": truth, "limit": limit}
    # JSON is YAML, but for escaped surrogates: text beyond ASCII is passed as it is.
    settings = [
        f"records.{key}={json.dumps(v, ensure_ascii=False)}" for key, v in given.items() if v is not None
    ]
    names = [name] if Path(name).is_file() else name.split("+")
    config = load_config([config_path(one) for one in names], [*overrides, *settings])
    if config.device.startswith("cuda"):  # torch knows whether it is there; ask before any work
        from ppt.backbones.weights import resolve_device

        try:
            resolve_device(config.device)
        except ValueError as error:
            raise ConfigError(f"device: {error}") from None
    return config


def _walk(config: Config, output: Place, fresh: bool) -> int:
    """Run every stage, print a line for each; returns how many items were skipped, 0 < all of them or it
    fails.
    """
    from pipelines.run import run as walk

    skipped = 0
    for summary in walk(config, output, fresh):
        typer.echo(summary.line())
        skipped += summary.skipped
        if summary.items == 0 and summary.stage != "evaluate":
            typer.echo(
                f"ppt: no item came through {summary.stage}; see {output / summary.stage}/failures.jsonl",
                err=True,
            )
            raise typer.Exit(1)
    return skipped


def main() -> None:
    """Entry point: errors for people on stderr, without a traceback unless PPT_TRACEBACK is set."""
    # While shards are made the engine has handlers of its own, which let those in progress finish.
    before = {number: signal.signal(number, exits.stopped) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        app()
    except Exception as error:
        if os.environ.get("PPT_TRACEBACK"):
            raise
        exits.stop(str(error) or type(error).__name__, exits.exit_code(error))
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
