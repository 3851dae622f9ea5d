"""The command line by its contract: commands and what they leave, plans, quiet repeats, and starting over."""

import json
import re
from pathlib import Path

from fixtures.pictures import read_rows, write_rows
from fixtures.processes import snapshot

import ppt
from pipelines import cli, shipped

ROOT = Path(__file__).parents[2]
CUSTOM = ROOT / "configs" / "custom.yaml"
STAGES = ("records", "relevance", "masks", "labels", "views", "quality", "evaluate")
SCORES = {"miou", "oiou", "pointm", "n", "missing", *(f"prec@0.{tenths}" for tenths in range(5, 10))}


def times(folder):
    return {path: path.stat().st_mtime_ns for path in folder.rglob("*") if path.is_file()}


# --- commands


def test_run_walks_from_pairs_to_the_report(command, whole, tmp_path):
    said = command(*whole)
    assert (said.code, said.err) == (0, "")
    assert [line.split(":")[0] for line in said.out.splitlines()] == [*STAGES, "report"]
    out = tmp_path / "out"
    for stage in STAGES:
        for name in ("manifest.json", "config.yaml", "index.json", "failures.jsonl", "preview.png"):
            assert (out / stage / name).exists(), (stage, name)
    metrics = json.loads((out / "evaluate" / "metrics.json").read_text())
    assert set(metrics["labels"]) == SCORES
    assert (metrics["labels"]["n"], metrics["labels"]["miou"]) == (6, 1.0)
    assert metrics["conventions"]
    assert len(read_rows(out / "evaluate" / "per_sample.jsonl")) == 6
    assert (out / "report.html").read_text(encoding="utf-8").count("<html") == 1


def test_the_stages_one_by_one_leave_what_run_leaves(command, pictures, whole, tmp_path):
    assert command(*whole).code == 0
    files = ("--pairs", pictures / "pairs.jsonl", "--truth", pictures / "truth.jsonl")
    apart = tmp_path / "apart" / "out"
    assert command("records", CUSTOM, *files, "--output", apart).code == 0
    for stage in STAGES[1:]:
        said = command(stage, CUSTOM, "--output", apart)
        assert (said.code, said.out.split(":")[0]) == (0, stage)
    assert command("report", apart).code == 0
    assert snapshot(apart) == snapshot(tmp_path / "out")


def test_demo_runs_the_data_it_ships_with(command, pictures, monkeypatch, tmp_path):
    (tmp_path / "demo.yaml").write_text("points: {method: peak}")
    monkeypatch.setattr(cli, "DEMO_DATA", pictures)
    monkeypatch.setattr(shipped, "FOLDERS", (tmp_path,))
    said = command("demo", "--output", tmp_path / "demo")
    assert (said.code, said.err) == (0, "")
    assert (tmp_path / "demo" / "report.html").exists()
    assert (tmp_path / "demo" / "evaluate" / "metrics.json").exists()


def test_the_demo_data_is_where_demo_looks():
    assert read_rows(cli.DEMO_DATA / "pairs.jsonl")
    assert read_rows(cli.DEMO_DATA / "truth.jsonl")


def test_without_truth_evaluate_is_skipped_and_nothing_is_wrong(command, pictures, tmp_path):
    said = command("run", CUSTOM, "--pairs", pictures / "pairs.jsonl", "--output", tmp_path / "out")
    assert said.code == 0
    assert "evaluate: no truth, so nothing was scored" in said.out
    assert not (tmp_path / "out" / "truth").exists()
    assert not (tmp_path / "out" / "evaluate").exists()
    assert (tmp_path / "out" / "report.html").exists()


def test_pairs_may_be_csv(command, pictures, tmp_path):
    (pictures / "pairs.csv").write_text("image,text,id\na.png,the red disc,one\nc.png,the green disc,two\n")
    said = command("run", CUSTOM, "--pairs", pictures / "pairs.csv", "--output", tmp_path / "out")
    assert said.code == 0
    assert [row["id"] for row in read_rows(tmp_path / "out" / "labels" / "labels.jsonl")] == ["one", "two"]


def test_a_shipped_config_is_known_by_its_name_whatever_lies_in_the_folder(command, pictures, tmp_path):
    Path("custom").mkdir()
    arguments = ("--pairs", pictures / "pairs.jsonl", "--output", tmp_path / "out", "--dry-run")
    assert command("run", "custom", *arguments).code == 0


def test_paths_need_not_be_ascii(command, pictures, tmp_path):
    moved = pictures.rename(tmp_path / 'фото 🖼 "x" y: z #1')
    output = tmp_path / "ausgabe ü"
    said = command("run", CUSTOM, "--pairs", moved / "pairs.jsonl", "--output", output)
    assert (said.code, said.err) == (0, "")


def test_set_changes_one_setting_and_limit_takes_the_first_pairs(command, pictures, tmp_path):
    files = ("--pairs", pictures / "pairs.jsonl", "--output", tmp_path / "out")
    said = command("run", CUSTOM, *files, "--set", "points.method=read", "--set", "seed=7", "--limit", 3)
    assert said.code == 0
    rows = read_rows(tmp_path / "out" / "labels" / "labels.jsonl")
    assert [row["id"] for row in rows] == ["a-left", "a-right", "b-left"]
    assert all("read" in row["reasons"] for row in rows)
    assert json.loads((tmp_path / "out" / "masks" / "manifest.json").read_text())["seed"] == 7


def test_version_and_help(command):
    said = command("--version")
    assert (said.code, said.out, said.err) == (0, f"ppt {ppt.__version__}\n", "")
    said = command("--help")
    assert said.code == 0
    for name in ("demo", "run", *STAGES, "report", "doctor"):
        assert name in said.out


def test_doctor_finds_nothing_wrong_here(command):
    said = command("doctor")
    assert (said.code, said.err) == (0, "")
    assert "WRONG" not in said.out
    for word in (
        "python",
        "torch and torchvision are a matching pair",
        "sam weights",
        "devices: cpu",
        "GB free",
    ):
        assert word in said.out
    assert list(Path().iterdir()) == []


def test_doctor_names_what_is_wrong_and_the_remedy(command, monkeypatch):
    from pipelines import doctor

    monkeypatch.setattr(doctor, "LEAST_FREE", 10**18)
    monkeypatch.setattr(doctor, "PACKAGES", ("no-such-package",))
    said = command("doctor")
    assert said.code == 1
    assert "WRONG no-such-package is not installed\n      pip install" in said.out
    assert "free some space" in said.out


# --- plan


def test_a_dry_run_prints_the_plan_and_writes_nothing(command, pictures, whole, tmp_path):
    extra = {"id": "x", "image": "y" * 300, "text": "red"}
    write_rows(pictures / "pairs.jsonl", [*read_rows(pictures / "pairs.jsonl"), extra, extra])
    said = command(*whole, "--dry-run", "--set", "shard_size=2")
    assert (said.code, said.err) == (0, "")
    assert not (tmp_path / "out").exists()
    assert "9 rows, 8 to do, 1 refused" in said.out
    assert "3 shards of 2 images" in said.out
    assert "segmenter" not in said.out
    for stage in STAGES[:4]:
        assert any(line.startswith(stage) and line.endswith("to do") for line in said.out.splitlines())
    true = len(read_rows(pictures / "truth.jsonl"))
    assert f"evaluate    against {true} true masks" in said.out
    assert re.search(r"^in all +[\d.]+ [TG]FLOP: .* at [\d,]+ GFLOP/s, measured here", said.out, re.MULTILINE)
    assert re.search(r"^disk +about .* free at .*: enough$", said.out, re.MULTILINE)
    assert f"missing     1 images: {'y' * 300}" in said.out


def test_a_dry_run_tells_of_the_segmenter_where_one_is_trained(command, whole):
    said = command(*whole, "--dry-run", "--set", "with_segmenter=true", "--set", "segmenter.steps=70")
    assert re.search(r"^segmenter   70 steps, about 14 KB, \d.* to do$", said.out, re.MULTILINE)
    assert re.search(r"^predictions 7 items, about 4 KB, \d.* to do$", said.out, re.MULTILINE)
    cached = r"^cache +10 looks of SAM at 5 images; keeping [\d.]+ MB of embeddings would save \d+%"
    assert re.search(cached, said.out, re.MULTILINE)
    mirrored = command(*whole, "--dry-run", "--set", "points.method=generator").out
    assert "13 looks of SAM at 5 images and 4 mirror images;" in mirrored
    kept = command(*whole, "--dry-run", "--set", "with_segmenter=true", "--set", "embeddings_gib=0.001").out
    assert re.search(r"keeping 1 MB of embeddings saves \d+%", kept)


def test_a_dry_run_tells_how_far_more_workers_help(command, whole):
    said = command(*whole, "--dry-run", "--set", "shard_size=2").out
    for line in (
        r"workers +1 takes [\d.]+ s; 3, the most that have work, take [\d.]+ s",
        r"shards +[\d.]+ s of one worker each; 9 files and an index of \d KB a stage",
        r"storage +a worker moves \d+ KB/s: storage of 1 GB/s feeds [\d,]+, more of them wait for it",
    ):
        assert re.search(f"^{line}$", said, re.MULTILINE), line
    trained = command(*whole, "--dry-run", "--set", "with_segmenter=true").out
    assert re.search(r"^workers +1 takes .*, .+ of it trainings' steps; 1, the", trained, re.MULTILINE)


def test_a_dry_run_names_the_weights_that_are_missing(command, whole):
    said = command(*whole, "--dry-run", "--set", "sam.model=vit_b")
    assert "missing     weights of sam vit_b: " in said.out
    assert "ec2df62732614e57411cdcf32a23ffdf28910380d03139ee0f4fcbe91eb8c912" in said.out


def test_a_dry_run_knows_what_is_done(command, whole, pictures, tmp_path):
    command(*whole)
    before = times(tmp_path / "out")
    (tmp_path / "out" / "labels" / "index.json").unlink()
    said = command(*whole, "--dry-run")
    assert "masks       7 items" in said.out
    assert said.out.count("complete, 1 shards") == 5
    assert "1 of 1 shards done" in said.out
    assert "changed" not in said.out
    assert {p: t for p, t in before.items() if p.name != "index.json" or "labels" not in str(p)} == times(
        tmp_path / "out"
    )
    first, *others = read_rows(pictures / "pairs.jsonl")
    write_rows(pictures / "pairs.jsonl", [*others, first | {"id": "new"}, first | {"id": "newer"}])
    told = "changed     2 pairs are new, 1 gone: their shards are made anew\n"
    assert told in command(*whole, "--dry-run").out


# --- again, stale, fresh


def test_the_same_command_again_touches_nothing(command, whole, models, tmp_path):
    command(*whole)
    before, bytes_before = times(tmp_path / "out"), snapshot(tmp_path / "out")
    calls = dict(models.clip.calls), dict(models.sam.calls)
    said = command(*whole)
    assert said.code == 0
    assert said.out.count("0 shards made, 1 kept") == 6
    assert times(tmp_path / "out") == before
    assert snapshot(tmp_path / "out") == bytes_before
    assert (models.clip.calls, models.sam.calls) == calls


def test_another_recipe_stops_and_shows_the_difference_and_fresh_starts_over(command, whole, tmp_path):
    command(*whole)
    before = snapshot(tmp_path / "out")
    changed = (*whole, "--set", "points.method=read", "--set", "masks.min_area=0.001")
    said = command(*changed)
    assert said.code == 2
    assert "points.method: 'peak' -> 'read'" in said.err
    assert "masks.min_area: 0.0005 -> 0.001" in said.err
    assert "--fresh" in said.err
    assert "Traceback" not in said.err
    assert snapshot(tmp_path / "out") == before
    assert command(*changed, "--fresh").code == 0
    assert command(*changed).code == 0
    assert command(*whole).code == 2
    command(*whole, "--fresh")
    assert snapshot(tmp_path / "out") == before


def test_changed_data_is_taken_in(command, pictures, whole, tmp_path):
    command(*whole)
    with open(pictures / "pairs.jsonl", "a") as file:
        file.write('{"id": "new", "image": "c.png", "text": "green"}\n')
    said = command(*whole)
    assert said.code == 0
    assert "pairs added: 1" in said.out
    command(*whole[:-1], tmp_path / "anew")
    labels = "labels/labels.jsonl"
    assert (tmp_path / "out" / labels).read_bytes() == (tmp_path / "anew" / labels).read_bytes()


def test_a_folder_of_something_else_is_left_alone(command, pictures, tmp_path):
    (tmp_path / "out" / "records").mkdir(parents=True)
    (tmp_path / "out" / "records" / "thesis.txt").write_text("years of work")
    files = ("--pairs", pictures / "pairs.jsonl", "--output", tmp_path / "out")
    said = command("run", CUSTOM, *files, "--fresh")
    assert said.code == 2
    assert "thesis.txt" in said.err
    assert [path.name for path in (tmp_path / "out" / "records").iterdir()] == ["thesis.txt"]
