"""Stage 2: lessons from the pairs that may teach, mosaics of them, and a training that resumes to the bit."""

import json
import shutil

import numpy as np
import pytest
from fixtures.pictures import disc, picture, read_rows, write_rows
from fixtures.processes import snapshot
from fixtures.walk import SMALL, rows, settings, walk
from PIL import Image

from ppt import rle
from ppt.points.from_maps import no_points
from ppt.points.weights import read_generator
from ppt.prompting import Prompt
from ppt.store import Artifact


@pytest.fixture
def pictures(tmp_path):
    """Four discs alone, two pairs of discs to train on, one held out; a.png's disc is of a test pair too."""
    folder = tmp_path / "pictures"
    folder.mkdir()
    pairs, truth = [], []
    scenes = {
        "one.png": {"left": "red"}, "two.png": {"middle": "green"}, "three.png": {"right": "blue"},
        "four.png": {"right": "red"}, "held.png": {"left": "blue"},
        "both.png": {"left": "red", "right": "blue"}, "more.png": {"left": "green", "middle": "red"},
        "test.png": {"left": "red", "right": "green"},
    }  # fmt: skip
    for name, discs in scenes.items():
        Image.fromarray(picture(discs)).save(folder / name)
        for where, colour in discs.items():
            id = f"{name.split('.')[0]}-{where}"
            source = "object_centric" if len(discs) == 1 else "referring"
            split = "test" if name == "test.png" else "train"
            pairs.append(
                {"id": id, "image": name, "text": f"the {colour} disc", "split": split, "source": source}
            )
            truth.append({"id": id, "segmentation": rle.encode(disc(where)).to_json()})
    pairs.append({"id": "held-test", "image": "held.png", "text": "the blue disc", "split": "test"})
    write_rows(folder / "pairs.jsonl", pairs)
    write_rows(folder / "truth.jsonl", truth)
    return folder


@pytest.fixture
def output(tmp_path):
    return tmp_path / "out"


def lessons(output, name):
    return {row["id"]: row for row in Artifact.open(output / "points" / name).rows()}


def test_the_pairs_that_may_teach_do_and_no_others(models, pictures, output):
    summary = walk(settings(pictures, *SMALL), output, "points")
    assert summary.line() == "points: 1 items, 0 skipped; 1 shards made, 0 kept"
    assert set(lessons(output, "object_centric")) == {"one-left", "two-middle", "three-right", "four-right"}
    pairs = {"both-left", "both-right", "more-left", "more-middle"}
    assert set(lessons(output, "referring_0")) == set(lessons(output, "referring_1")) == pairs


def test_a_pseudo_mask_teaches_points_inside_it(models, pictures, output):
    walk(settings(pictures, *SMALL), output, "points")
    for id, row in lessons(output, "object_centric").items():
        where = id.split("-")[1]
        np.testing.assert_array_equal(rle.decode(rle.from_json(row["segmentation"])), disc(where))
        assert 0.5 < row["confidence"] == row["sure"] <= 1
        [points] = row["things"]
        inside = [disc(where)[int(y * 48), int(x * 64)] for x, y, _ in points]
        assert inside == [True, False, False]  # a disc is compact


def test_mosaics_say_what_is_true_of_one_thing(models, pictures, output):
    walk(settings(pictures, *SMALL), output, "points")
    artifact = Artifact.open(output / "points" / "mosaics")
    found = list(artifact.rows())
    assert len({row["features"] for row in found}) >= 3
    tensors = {name for key in artifact.keys for name in artifact.tensors(key)}
    for row in found:
        assert {f"dense/{row['features']}", f"map/{row['id']}", f"words/{row['id']}"} <= tensors
        assert row["things"]
    assert (artifact.folder / "preview.png").stat().st_size > 1000


def test_the_weights_are_those_of_a_generator_and_masks_use_it(models, pictures, output):
    config = settings(pictures, *SMALL, "points.sets=2")
    walk(config, output, "points")
    generator = read_generator(Artifact.open(output / "points"))
    assert not generator.training
    training = output / "points" / "training"
    assert len((training / "log.jsonl").read_text().splitlines()) == 6
    assert {path.name for path in training.glob("*.png")} == {f"points_00000{n}.png" for n in (2, 4, 6)}
    assert list((training / "tensorboard").iterdir())
    walk(config, output, "masks", first="masks")
    for row in rows(output, "masks").values():
        assert 1 <= len(row["sets"]) <= 2
        assert all(label != -1 for point in row["sets"] for *_, label in point["points"])


def test_a_training_that_was_killed_goes_on_as_if_nothing_had_happened(
    models, pictures, output, tmp_path, monkeypatch
):
    from pipelines.s2_points import training

    config = settings(pictures, *SMALL)
    walk(config, output, "points")
    other = tmp_path / "other"
    for step in (1, 3, 5):

        def stopped(*arguments, step=step, real=training.draw):
            if arguments[3] == step:
                raise KeyboardInterrupt
            return real(*arguments)

        with monkeypatch.context() as patch:
            patch.setattr(training, "draw", stopped)
            with pytest.raises(KeyboardInterrupt):
                walk(config, other, "points")
    walk(config, other, "points")
    for folder in (other, output):
        shutil.rmtree(folder / "points" / "training" / "tensorboard")  # holds times
    assert snapshot(other / "points") == snapshot(output / "points")


def test_without_object_centric_pairs_a_warning_says_what_is_lost(models, pictures, output, capsys):
    only = [json.loads(line) for line in (pictures / "pairs.jsonl").read_text().splitlines()]
    write_rows(pictures / "pairs.jsonl", [row for row in only if row.get("source") != "object_centric"])
    walk(settings(pictures, *SMALL), output, "points")
    assert "no object-centric pair has a pseudo-mask" in capsys.readouterr().err
    assert not (output / "points" / "mosaics").exists()


@pytest.mark.parametrize("order", ["easiest_first", "together", "hardest_first"])
def test_every_order_trains(models, pictures, output, order):
    walk(settings(pictures, *SMALL, f"generator.order={order}"), output, "points")
    log = [json.loads(line) for line in (output / "points/training/log.jsonl").read_text().splitlines()]
    assert all(np.isfinite(list(row.values())).all() for row in log)


def test_without_the_truth_training_gives_the_same_bytes(models, pictures, output, tmp_path):
    config = settings(pictures, *SMALL, truth=True)
    blind = tmp_path / "blind"
    walk(config, output, "points")
    walk(config, blind, "relevance")
    shutil.rmtree(blind / "truth")
    (pictures / "truth.jsonl").unlink()
    walk(config, blind, "points", first="points")
    for folder in (blind, output):
        shutil.rmtree(folder / "points" / "training" / "tensorboard")  # holds times
    assert snapshot(blind / "points") == snapshot(output / "points")


def test_a_round_that_finds_nothing_leaves_the_pseudo_masks_before_it(
    models, pictures, output, capsys, monkeypatch
):
    from pipelines.s2_points import training

    class Silent(training.Prompter):
        def __call__(self, examples):
            if self.generator is None:
                return super().__call__(examples)
            return [[Prompt(no_points(), e.relevance)] for e in examples]

    monkeypatch.setattr(training, "Prompter", Silent)
    walk(settings(pictures, *SMALL), output, "points")
    assert all(row["confidence"] == 0 for row in lessons(output, "referring_1").values())
    assert "round 1 found no mask" in capsys.readouterr().err


def test_sentences_of_every_sort_teach_and_are_answered(models, pictures, output):
    """One word, three hundred, another language, signs alone."""
    texts = {"word": "disc", "long": "red " * 300, "other": "\u5de6\u8fb9\u7684\u732b", "signs": "the ... !?"}
    with (pictures / "pairs.jsonl").open("a") as file:
        for id, text in texts.items():
            row = {"id": id, "image": "both.png", "text": text, "split": "train", "source": "referring"}
            file.write(json.dumps(row) + "\n")
    config = settings(pictures, *SMALL)
    walk(config, output, "points")
    walk(config, output, "masks", first="masks")
    found = rows(output, "masks")
    for id in texts:
        assert found[id]["sets"], id


def test_nothing_to_learn_from_is_an_error_that_says_what_to_do(models, pictures, output):
    pairs = [row for row in read_rows(pictures / "pairs.jsonl") if row.get("source") == "referring"]
    write_rows(pictures / "pairs.jsonl", pairs)
    with pytest.raises(ValueError, match=r"add referring to generator\.sources"):
        walk(settings(pictures, *SMALL, "generator.sources=[object_centric, mosaic]"), output, "points")
