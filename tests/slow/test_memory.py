"""Memory does not grow with the data: ten times the images take no more of it. Three minutes on one core."""

import os
import sys

import cv2
import numpy as np
import pytest
from fixtures import small_sam
from fixtures.pictures import write_rows
from fixtures.processes import ENVIRONMENT

pytestmark = pytest.mark.slow
FEW, MANY = 200, 2000


def peak(*arguments):
    """Peak resident KiB of a command, which must succeed."""
    code = "from pipelines.cli import main; main()"
    process = os.posix_spawn(sys.executable, [sys.executable, "-c", code, *map(str, arguments)], ENVIRONMENT)
    _, status, used = os.wait4(process, 0)
    assert os.waitstatus_to_exitcode(status) == 0
    return used.ru_maxrss


def images(folder, count):
    """Tiny images with two sentences each; the pairs file."""
    (folder / "images").mkdir(parents=True)
    rows, rng = [], np.random.default_rng(count)
    for number in range(count):
        pixels = np.full((48, 64, 3), rng.integers(0, 256, 3), np.uint8)
        cv2.circle(pixels, (int(rng.integers(10, 54)), 24), 9, rng.integers(0, 256, 3).tolist(), -1)
        cv2.imwrite(str(folder / "images" / f"{number}.png"), pixels)
        texts = f"the ball number {number}", "the ball on the left"
        rows += [{"image": f"images/{number}.png", "text": text} for text in texts]
    write_rows(folder / "pairs.jsonl", rows)
    return folder / "pairs.jsonl"


def test_ten_times_the_images_take_a_tenth_more_memory_at_most(tmp_path):
    used = {"run": [], "report": []}
    for count in (FEW, MANY):
        folder = tmp_path / str(count)
        pairs, output = images(folder, count), folder / "out"
        settings = [f"sam.weights={small_sam.write(folder)}", "clip.size=64", "relevance.redundancy=none"]
        overrides = [word for setting in settings for word in ("--set", setting)]
        used["run"].append(peak("run", "custom", "--pairs", pairs, "--output", output, *overrides))
        used["report"].append(peak("report", output))
    for command, (few, many) in used.items():
        print(f"{command}: {few / 1024:.0f} MiB for {FEW} images, {many / 1024:.0f} MiB for {MANY}")
        assert many < 1.1 * few, command
