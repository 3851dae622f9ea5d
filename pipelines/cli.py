"""The front door: `ppt ...`. Parses, calls a stage, prints; nothing else.

Exit codes: 0 done, 1 failed, 2 wrong usage or config (nothing was done), 3 done with skipped items, 130 / 143
stopped by SIGINT / SIGTERM (the same command resumes).
"""

import json
import os
import re
import signal
from collections.abc import Collection, Iterable
from pathlib import Path
from typing import Annotated

import typer

from pipelines import exits, export_command, predict_command, report_command, review, weights
from pipelines.destination import destination
from pipelines.exits import leave, speaks, tell
from pipelines.options import (
    Address,
    ConfigFile,
    Engine,
    Fresh,
    Output,
    Overrides,
    Pairs,
    Shards,
    Truth,
    division,
)
from pipelines.shipped import config_path
from ppt import __version__, ray_actors
from ppt.config import Config, ConfigError, load_config
from ppt.places import Place, on_disk, place

app = typer.Typer(add_completion=False, no_args_is_help=True, pretty_exceptions_enable=False, help=__doc__)
app.add_typer(weights.app, name="weights")
app.add_typer(review.app, name="review")

data = typer.Typer(no_args_is_help=True, help="Look at data before anything is made of them.")
app.add_typer(data, name="data")

NEEDS = ("device", "engine")  # of the machine, to work on items
DEMO_DATA = Path(__file__).parents[1] / "ppt" / "scenes" / "demo"


@app.command()
def demo(output: Output = "outputs/demo", fresh: Fresh = False) -> None:
    """Embedded weights and data through every stage that exists, then the report."""
    config = _config("demo", [], f"{DEMO_DATA}/pairs.jsonl", f"{DEMO_DATA}/truth.jsonl", None)
    folder = destination(output, config)
    skipped = _walk(config, folder, fresh)
    if speaks():
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
    slurm_array: Annotated[
        int | None,
        typer.Option(min=1, metavar="N", help="Print a bash script that has SLURM do it, N tasks a stage."),
    ] = None,
    slurm_gpus: Annotated[int, typer.Option(min=0, help="GPUs of a training in that script.")] = 1,
    engine: Engine = None,
    address: Address = None,
    fresh: Fresh = False,
) -> None:
    """All stages in order on your pairs, then the report."""
    asked = [*overrides, *division(None, engine, address)]
    asked += ["records.drop_leaks=true"] if drop_leaks else []
    needs = () if slurm_array is not None else ("device",) if dry_run else NEEDS
    settings = _config(config, asked, pairs, truth, limit, needs)
    if settings.records.pairs is None and not settings.records.sources:
        raise ConfigError("records.pairs: name the file of pairs with --pairs FILE (got None)")
    folder = destination(output, settings)
    if dry_run:
        from pipelines.plan import describe

        for line in describe(settings, folder):
            tell(line)
        return
    if slurm_array is not None:
        from pipelines.slurm import Command, script

        chosen = asked if limit is None else [*asked, f"records.limit={limit}"]
        command = Command(config, output, tuple(chosen), pairs, truth)
        return typer.echo(script(settings, command, slurm_array, slurm_gpus, fresh), nl=False)
    skipped = _walk(settings, folder, fresh)
    if speaks():
        report_command.leave_report(folder)
    leave(skipped)


def _stage_command(name: str, help: str) -> None:
    def command(
        config: ConfigFile,
        output: Output,
        overrides: Overrides = [],  # noqa: B006 -- typer copies it
        pairs: Pairs = None,
        truth: Truth = None,
        shards: Shards = None,
        engine: Engine = None,
        address: Address = None,
        fresh: Fresh = False,
    ) -> None:
        from pipelines.run import STAGES

        settings = _config(config, [*overrides, *division(shards, engine, address)], pairs, truth, None)
        summary = STAGES[name](settings, destination(output, settings), fresh)
        tell(summary.line())
        leave(summary.skipped, 1 if shards else summary.items)

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
    shards: Shards = None,
    engine: Engine = None,
    address: Address = None,
    fresh: Fresh = False,
) -> None:
    """Stage 4: pseudo-labels with weight, scores and reasons."""
    from pipelines import s4_labels
    from pipelines.run import STAGES

    settings = _config(config, [*overrides, *division(shards, engine, address)], pairs, truth, None)
    folder = destination(output, settings)
    if review and speaks():
        s4_labels.take_review(place(review), folder)
    if believe and speaks():
        s4_labels.take_quality(place(believe), folder)
    summary = STAGES["labels"](settings, folder, fresh)
    tell(summary.line())
    leave(summary.skipped, 1 if shards else summary.items)


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
    from pipelines.run import evaluated

    asked = [*overrides, "evaluate.nta=true"] if nta else overrides
    settings = _config(config, asked, pairs, truth, None)
    folder = destination(output, settings)
    found = evaluated(settings, folder, fresh)
    for line in (found.line(), *found.splits()):
        tell(line)
    for line in s6_against.run(settings, folder, place(against)) if against and speaks() else ():
        tell(line)
    leave(found.skipped, found.items)


app.command()(predict_command.predict)
app.command()(report_command.report)
app.command()(export_command.export)


@app.command()
def benchmark(
    what: Annotated[
        str, typer.Argument(metavar="points|segmenter|speed|train|networks|engine", help="What to compare.")
    ],
    config: ConfigFile,
    output: Output = "outputs/benchmark",
    overrides: Overrides = [],  # noqa: B006 -- typer copies it
    pairs: Pairs = f"{DEMO_DATA}/pairs.jsonl",
    truth: Truth = f"{DEMO_DATA}/truth.jsonl",
) -> None:
    """Compare ways to make points, or segmenters, against the truth; our speed with a naive loop's; what
    steps of training take, networks, and engines. On the demo's data unless told else.
    """
    from pipelines.benchmark.engine import engine
    from pipelines.benchmark.networks import networks
    from pipelines.benchmark.points import points
    from pipelines.benchmark.segmenter import segmenter
    from pipelines.benchmark.speed import speed
    from pipelines.benchmark.train import train

    comparisons = {
        "points": points, "segmenter": segmenter, "speed": speed, "train": train, "networks": networks,
        "engine": engine,
    }  # fmt: skip
    if what not in comparisons:
        raise ConfigError(f"benchmark: expected {', '.join(comparisons)}, got {what!r}")
    folder = on_disk(place(output), "--output of a benchmark")
    tell(comparisons[what](_config(config, overrides, pairs, truth, None), folder))


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
        tell(line if well else f"WRONG {line}")
    if not all(well for _, well in said):
        raise typer.Exit(1)


@app.command()
def doctor(output: Output = "outputs") -> None:
    """Versions, devices, weights, the torch/torchvision pair, free disk: what is wrong and how to mend it."""
    from pipelines.doctor import examine

    findings = list(examine(place(output)))
    for finding in findings:
        tell(f"{'ok  ' if finding.well else 'WRONG'} {finding.what}")
        if not finding.well:
            tell(f"      {finding.remedy}")
    if not all(finding.well for finding in findings):
        raise typer.Exit(1)


def _version(asked: bool) -> None:
    if asked:
        tell(f"ppt {__version__}")
        raise typer.Exit


@app.callback()
def _options(
    version: Annotated[bool, typer.Option("--version", callback=_version, is_eager=True)] = False,
) -> None:
    """Pixel masks from image-text pairs alone."""


def _config(
    name: str,
    overrides: Iterable[str],
    pairs: str | None,
    truth: str | None,
    limit: int | None,
    needs: Collection[str] = NEEDS,
) -> Config:
    """The config of a command. needs: what must be there for it, which is asked before any work."""
    given = {"pairs": pairs, "truth": truth, "limit": limit}
    for key, path in (("--pairs", pairs), ("--truth", truth)):
        if path is not None and re.search("[\ud800-\udfff]", path):
            raise ConfigError(f"{key}: {path!a} is no text in this locale; rename it, or set LC_ALL=C.UTF-8")
    # JSON is YAML, but for escaped surrogates: text beyond ASCII is passed as it is.
    settings = [
        f"records.{key}={json.dumps(v, ensure_ascii=False)}" for key, v in given.items() if v is not None
    ]
    names = [name] if Path(name).is_file() else name.split("+")
    config = load_config([config_path(one) for one in names], [*overrides, *settings])
    if "device" in needs and config.device.startswith("cuda"):  # torch knows whether it is there
        from ppt.backbones.weights import resolve_device

        try:
            resolve_device(config.device)
        except ValueError as error:
            raise ConfigError(f"device: {error}") from None
    if "engine" in needs and config.engine == "ray":
        ray_actors.connect(config.ray)
    return config


def _walk(config: Config, output: Place, fresh: bool) -> int:
    """Run every stage, print a line for each; returns how many items were skipped, 0 < all of them or it
    fails.
    """
    from pipelines.run import run as walk

    skipped = 0
    for summary in walk(config, output, fresh):
        tell(summary.line())
        skipped += summary.skipped
        if summary.items == 0 and summary.stage != "evaluate":
            folder = output / summary.stage
            tell(f"ppt: no item came through {summary.stage}; see {folder}/failures.jsonl", err=True)
            raise typer.Exit(1)
    return skipped


def main() -> None:
    """Entry point: errors for people on stderr, without a traceback unless PPT_TRACEBACK is set."""
    exits.stand_ready()
    try:
        os.getcwd()
    except OSError:
        exits.stop("the folder that this was started in is gone; start it in another", 2)
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
