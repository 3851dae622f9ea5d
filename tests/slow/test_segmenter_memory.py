"""What a step of the shipped designs takes at the size of the literature. Random weights: memory is the same.

About three minutes on two cores.
"""

import subprocess
import sys

import pytest

pytestmark = pytest.mark.slow
STEP = """
import resource, sys
import open_clip, torch
from ppt.backbones.clip_towers import TextTower, Towers, VitTower
from ppt.config import load_config
from ppt.segmenter.learner import Learner, Lessons, Weights
from ppt.segmenter.model import Segmenter
from ppt.segmenter.noise import Measures
from pipelines.s5_segmenter import design
from pipelines.shipped import config_path

config = load_config([config_path(name) for name in ("refcoco_vit_b16", sys.argv[1])])
torch.manual_seed(0)
clip = open_clip.CLIP(**open_clip.get_model_config("ViT-B-16")).eval().requires_grad_(False)
how = config.segmenter
segmenter = Segmenter(Towers(VitTower(clip.visual), TextTower(clip)), design(config))
learner = Learner(segmenter, Weights(**how.losses.model_dump()), Measures(**how.noise.model_dump()), 10)
b, grid = 4, 26 * 4
tokens = open_clip.get_tokenizer("ViT-B-16")(["the red bus", "a dog", "man on the left", "cup"])
things = torch.rand(2, 3, grid, grid).round()
image, meant = torch.tensor([0, 0, 1, 1]), torch.tensor([0, 1, 0, 2])
covered = things[image, meant][:, None]
lessons = Lessons(
    torch.randn(2, 3, how.size, how.size), tokens, covered, torch.ones_like(covered), torch.ones(b), image,
    things, meant, torch.arange(2),
)
losses = learner(lessons, 0, torch.Generator().manual_seed(0))
sum(losses.values()).backward()
assert all(bool(torch.isfinite(loss)) for loss in losses.values())
print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024)
"""


@pytest.mark.parametrize("name", ["etris", "talent", "haris", "magnet", "unified"])
def test_a_step_of_four_sentences_at_416_pixels_fits_ten_gigabytes(name):
    said = subprocess.run(
        [sys.executable, "-c", STEP, f"segmenter_{name}"], capture_output=True, text=True, check=False
    )
    assert said.returncode == 0, said.stderr[-2000:]
    mebibytes = float(said.stdout.split()[-1])
    print(f"{name}: {mebibytes:.0f} MiB")
    assert mebibytes < 10 * 1024
