"""ppt predict: an image, a folder, a file of pairs; what cannot be read is said and passed over."""

import numpy as np
import pytest
from fixtures.pictures import HEIGHT, WIDTH, picture, read_rows, write_rows
from fixtures.walk import TINY, rows, settings, walk
from PIL import Image
from typer.testing import CliRunner

from pipelines.cli import app
from pipelines.predict import config_of, segmenter_of
from ppt.config import ConfigError


@pytest.fixture
def run(models, pictures, tmp_path):
    """A run whose segmenter is trained."""
    walk(settings(pictures, *TINY), tmp_path / "run", "segmenter")
    return tmp_path / "run"


def predict(*arguments):
    return CliRunner().invoke(app, ["predict", *map(str, arguments)])


def test_one_image_is_drawn_and_told(run, pictures, tmp_path):
    ended = predict(
        "--weights", run, "--image", pictures / "a.png", "--text", "the red disc", "--output", tmp_path / "o"
    )
    assert ended.exit_code == 0, ended.output
    assert ended.output.startswith("a.png: ")
    [row] = read_rows(tmp_path / "o" / "predictions.jsonl")
    assert (row["image"], row["text"]) == ("a.png", "the red disc")
    assert np.asarray(Image.open(tmp_path / "o" / "a.png.png")).shape == (HEIGHT, WIDTH, 3)
    again = predict(
        "--weights",
        run / "segmenter",
        "--image",
        pictures / "a.png",
        "--text",
        "the red disc",
        "--output",
        tmp_path / "p",
    )
    assert again.exit_code == 0
    assert read_rows(tmp_path / "p" / "predictions.jsonl") == [row]


def test_a_segmenter_that_points_is_asked_with_the_sam_it_was_made_for(models, pictures, tmp_path):
    run, asked = tmp_path / "pointing", ("--image", pictures / "a.png", "--text", "the red disc")
    config = settings(pictures, *TINY, "segmenter.decoder=point", "sam.prompt_batch=5")
    walk(config, run, "segmenter")
    assert config_of(segmenter_of(run), []).sam == config.sam
    ended = predict("--weights", run, *asked, "--output", tmp_path / "o")
    assert ended.exit_code == 0, ended.output
    [row] = read_rows(tmp_path / "o" / "predictions.jsonl")
    assert row["segmentation"] is not None
    models.sam.weights_sha256 = "other"
    ended = predict("--weights", run, *asked, "--output", tmp_path / "p")
    assert "made for another SAM" in str(ended.exception)


def test_of_a_folder_what_cannot_be_read_is_said_and_passed_over(run, tmp_path):
    folder = tmp_path / "mine"
    folder.mkdir()
    Image.fromarray(picture({"left": "red"})).save(folder / "good.PNG")
    (folder / "bad.jpg").write_bytes(b"\xff\xd8 nothing")
    (folder / "notes.txt").write_text("no image")
    ended = predict("--weights", run, "--image", folder, "--text", "the red disc", "--output", tmp_path / "o")
    assert ended.exit_code == 3
    assert "bad.jpg: skipped (" in ended.output
    assert [row["image"] for row in read_rows(tmp_path / "o" / "predictions.jsonl")] == ["good.PNG"]


def test_a_file_of_pairs_is_walked_as_a_run_is(run, pictures, tmp_path):
    ended = predict("--weights", run, "--image", pictures / "pairs.jsonl", "--output", tmp_path / "o")
    assert ended.exit_code == 0, ended.output
    assert set(rows(tmp_path / "o", "predictions")) == {
        row["id"] for row in read_rows(pictures / "pairs.jsonl")
    }


def test_what_is_asked_wrongly_is_said(run, pictures, tmp_path):
    blank = predict(
        "--weights", run, "--image", pictures / "a.png", "--text", " ", "--output", tmp_path / "o"
    )
    assert isinstance(blank.exception, ConfigError)
    assert "--text: say what to look for" in str(blank.exception)
    (tmp_path / "empty").mkdir()
    none = predict(
        "--weights", run, "--image", tmp_path / "empty", "--text", "it", "--output", tmp_path / "o"
    )
    assert "neither an image, nor a folder of images, nor a file of pairs" in str(none.exception)
    write_rows(tmp_path / "nothing.jsonl", [])
    assert predict("--weights", tmp_path, "--image", pictures / "a.png", "--text", "it").exit_code != 0
