"""The image gate: which files open, what their pixels become, what is refused and how."""

import hashlib
import os
import struct
import zlib

import numpy as np
import pytest
from PIL import Image, ImageFile

from ppt.records.images import ImageError, ImagePolicy, digest, load

POLICY = ImagePolicy(max_pixels=10_000, exif="ignore", alpha="white", follow_links=False)
TRANSPOSE = ImagePolicy(max_pixels=10_000, exif="transpose", alpha="black", follow_links=False)
RAMP = np.arange(6 * 8 * 3, dtype=np.uint8).reshape(6, 8, 3)


def saved(tmp_path, image, name="a.png", **options):
    image = image if isinstance(image, Image.Image) else Image.fromarray(image)
    image.save(tmp_path / name, **options)
    return name


def refusal(tmp_path, name, policy=POLICY, **options):
    with pytest.raises(ImageError) as caught:
        load(tmp_path, name, policy, **options)
    assert name in str(caught.value)
    return caught.value.error


@pytest.mark.parametrize("name", ["a.png", "a.bmp", "a.tif", "a.webp"])
def test_rgb_comes_back_exactly_with_the_hash_of_the_bytes(tmp_path, name):
    options = {"lossless": True} if name == "a.webp" else {}
    loaded = load(tmp_path, saved(tmp_path, RAMP, name, **options), POLICY)
    np.testing.assert_array_equal(loaded.pixels, RAMP)
    assert loaded.pixels.flags.writeable
    assert loaded.sha256 == hashlib.sha256((tmp_path / name).read_bytes()).hexdigest()
    assert loaded.sha256 == digest(tmp_path, name, POLICY)
    assert loaded.flags_as(name) == ()


@pytest.mark.parametrize("size", [(1, 1), (1, 5000), (5000, 1)])
def test_thin_images_pass(tmp_path, size):
    loaded = load(tmp_path, saved(tmp_path, Image.new("RGB", size, "red")), POLICY)
    assert loaded.pixels.shape == (size[1], size[0], 3)


def test_grey_and_one_bit_are_repeated(tmp_path):
    grey = np.array([[0, 100, 255]], np.uint8)
    np.testing.assert_array_equal(
        load(tmp_path, saved(tmp_path, grey), POLICY).pixels, grey[..., None].repeat(3, axis=2)
    )
    loaded = load(tmp_path, saved(tmp_path, Image.fromarray(grey).convert("1", dither=0), "b.png"), POLICY)
    np.testing.assert_array_equal(loaded.pixels[0, :, 0], [0, 0, 255])
    assert loaded.flags == ("mode:1",)


def test_sixteen_bit_grey_is_scaled_and_not_clipped(tmp_path):
    deep = np.array([[0, 257, 128 * 257, 384, 386, 65535]], np.uint16)
    for name in ("a.png", "a.tif"):
        loaded = load(tmp_path, saved(tmp_path, deep, name), POLICY)
        np.testing.assert_array_equal(loaded.pixels[0, :, 1], [0, 1, 128, 1, 2, 255])
        assert loaded.flags == ("mode:I;16",)


def test_floats_and_long_integers_are_stretched_and_flat_ones_black(tmp_path):
    values = np.array([[-1.0, 0.0, 1.0]], np.float32)
    loaded = load(tmp_path, saved(tmp_path, values, "f.tif"), POLICY)
    np.testing.assert_array_equal(loaded.pixels[0, :, 0], [0, 128, 255])
    assert loaded.flags == ("mode:F",)
    long = load(tmp_path, saved(tmp_path, np.array([[10, 20, 30]], np.int32), "i.tif"), POLICY)
    np.testing.assert_array_equal(long.pixels[0, :, 0], [0, 128, 255])
    assert (
        load(tmp_path, saved(tmp_path, np.full((2, 2), 7.5, np.float32), "g.tif"), POLICY).pixels.max() == 0
    )


def test_values_that_are_not_finite_are_refused(tmp_path):
    assert refusal(tmp_path, saved(tmp_path, np.array([[np.nan, 1]], np.float32), "f.tif")) == "bad_image"


def test_transparency_is_laid_over_the_chosen_colour(tmp_path):
    rgba = np.array([[[255, 0, 0, 255], [255, 0, 0, 0]]], np.uint8)
    name = saved(tmp_path, rgba)
    np.testing.assert_array_equal(load(tmp_path, name, POLICY).pixels[0], [[255, 0, 0], [255, 255, 255]])
    np.testing.assert_array_equal(load(tmp_path, name, TRANSPOSE).pixels[0], [[255, 0, 0], [0, 0, 0]])
    shade = Image.fromarray(np.array([[[9, 255], [9, 0]]], np.uint8), "LA")
    loaded = load(tmp_path, saved(tmp_path, shade, "la.png"), POLICY)
    np.testing.assert_array_equal(loaded.pixels[0, :, 0], [9, 255])
    assert loaded.flags == ("mode:LA",)


def test_a_transparent_colour_counts_as_transparency(tmp_path):
    pixels = np.array([[[1, 2, 3], [9, 9, 9]]], np.uint8)
    name = saved(tmp_path, Image.fromarray(pixels), transparency=(9, 9, 9))
    np.testing.assert_array_equal(load(tmp_path, name, POLICY).pixels[0], [[1, 2, 3], [255, 255, 255]])
    palette = Image.fromarray(pixels).quantize(4)
    clear = palette.getpixel((0, 0))
    loaded = load(tmp_path, saved(tmp_path, palette, "p.png", transparency=clear), POLICY)
    np.testing.assert_array_equal(loaded.pixels[0], [[255, 255, 255], [9, 9, 9]])
    assert loaded.flags == ("mode:P",)


def test_cmyk_becomes_rgb(tmp_path):
    red = Image.new("RGB", (8, 8), (255, 0, 0)).convert("CMYK")
    loaded = load(tmp_path, saved(tmp_path, red, "a.jpg", quality=100), POLICY)
    np.testing.assert_allclose(loaded.pixels[4, 4], [255, 0, 0], atol=3)
    assert loaded.flags == ("mode:CMYK",)


@pytest.mark.parametrize("name", ["a.gif", "a.webp", "a.png", "a.tif"])
def test_of_an_animation_the_first_frame_is_taken(tmp_path, name):
    frames = [Image.new("RGB", (4, 4), colour) for colour in ("red", "blue")]
    options = {"lossless": True} if name == "a.webp" else {}
    loaded = load(
        tmp_path, saved(tmp_path, frames[0], name, save_all=True, append_images=frames[1:], **options), POLICY
    )
    np.testing.assert_array_equal(loaded.pixels[0, 0], [255, 0, 0])
    assert "first_frame" in loaded.flags


ORIENTED = {
    1: lambda p: p,
    2: lambda p: p[:, ::-1],
    3: lambda p: p[::-1, ::-1],
    4: lambda p: p[::-1],
    5: lambda p: p.transpose(1, 0, 2),
    6: lambda p: p.transpose(1, 0, 2)[:, ::-1],
    7: lambda p: p.transpose(1, 0, 2)[::-1, ::-1],
    8: lambda p: p.transpose(1, 0, 2)[::-1],
}


@pytest.mark.parametrize("orientation", ORIENTED)
@pytest.mark.parametrize("name", ["a.png", "a.tif", "a.webp"])
def test_orientation_is_ignored_or_applied_alike_in_every_format(tmp_path, name, orientation):
    exif = Image.Exif()
    exif[0x0112] = orientation
    options = {"lossless": True} if name == "a.webp" else {}
    saved(tmp_path, RAMP, name, exif=exif.tobytes(), **options)
    ignored, turned = load(tmp_path, name, POLICY), load(tmp_path, name, TRANSPOSE)
    np.testing.assert_array_equal(ignored.pixels, RAMP)
    np.testing.assert_array_equal(turned.pixels, ORIENTED[orientation](RAMP))
    assert ignored.flags == turned.flags == ((f"orientation:{orientation}",) if orientation > 1 else ())


def test_jpeg_with_orientation_six_keeps_or_swaps_its_sides(tmp_path):
    exif = Image.Exif()
    exif[0x0112] = 6
    name = saved(tmp_path, Image.new("RGB", (80, 60)), "a.jpg", exif=exif.tobytes())
    assert load(tmp_path, name, POLICY).pixels.shape == (60, 80, 3)
    assert load(tmp_path, name, TRANSPOSE).pixels.shape == (80, 60, 3)


def test_broken_exif_says_nothing_about_the_pixels(tmp_path):
    name = saved(tmp_path, RAMP, "a.webp", exif=b"Exif\0\0garbage", lossless=True)
    np.testing.assert_array_equal(load(tmp_path, name, POLICY).pixels, RAMP)


def test_the_bytes_decide_the_format_and_a_lying_name_is_noted(tmp_path):
    saved(tmp_path, RAMP)
    os.rename(tmp_path / "a.png", tmp_path / "a.jpg")
    loaded = load(tmp_path, "a.jpg", POLICY)
    np.testing.assert_array_equal(loaded.pixels, RAMP)
    assert loaded.flags_as("a.jpg") == ("content:PNG",)
    assert loaded.flags_as("b.PNG") == ()


@pytest.mark.parametrize("name", ["a.jpg", "a.png", "a.bmp", "a.gif", "a.tif", "a.webp"])
@pytest.mark.parametrize("share", [0.1, 0.5, 0.9])
def test_truncated_files_are_refused_whatever_others_set(tmp_path, name, share, monkeypatch):
    noise = np.random.default_rng(0).integers(0, 256, (64, 64, 3), np.uint8)
    saved(tmp_path, noise, name)
    whole = (tmp_path / name).read_bytes()
    (tmp_path / name).write_bytes(whole[: int(len(whole) * share)])
    monkeypatch.setattr(ImageFile, "LOAD_TRUNCATED_IMAGES", True)
    assert refusal(tmp_path, name) == "bad_image"
    assert ImageFile.LOAD_TRUNCATED_IMAGES is True


@pytest.mark.parametrize(
    "content", [b"", b"not an image", b"<html>", b"\xff\xd8\xff", b"\x89PNG\r\n\x1a\n", bytes(999)]
)
def test_foreign_bytes_are_refused_with_a_stable_message(tmp_path, content):
    (tmp_path / "a.jpg").write_bytes(content)
    assert refusal(tmp_path, "a.jpg") == "bad_image"
    with pytest.raises(ImageError) as caught:
        load(tmp_path, "a.jpg", POLICY)
    assert "0x" not in str(caught.value)


def test_formats_off_the_list_are_refused(tmp_path):
    saved(tmp_path, RAMP, "a.ppm")
    assert refusal(tmp_path, "a.ppm") == "bad_image"


def lying_png(width, height):
    """A PNG whose header claims a size that its few bytes do not hold."""

    def chunk(kind, data):
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    body = chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(b"\0")) + chunk(b"IEND", b"")
    return b"\x89PNG\r\n\x1a\n" + body


@pytest.mark.parametrize("side", [101, 12_000, 16_000, 40_000, 2**31 - 1])
def test_bombs_are_refused_by_their_header(tmp_path, side):
    (tmp_path / "bomb.png").write_bytes(lying_png(side, side))
    assert refusal(tmp_path, "bomb.png") == "too_large"


def test_the_cap_is_in_pixels_and_inclusive(tmp_path):
    assert load(tmp_path, saved(tmp_path, Image.new("L", (100, 100))), POLICY).pixels.shape == (100, 100, 3)
    saved(tmp_path, Image.new("L", (101, 100)), "b.png")
    with pytest.raises(ImageError, match=r"b\.png has 100x101 pixels, more than records\.max_pixels = 10000"):
        load(tmp_path, "b.png", POLICY)


def test_missing_files_folders_pipes_and_devices_never_block(tmp_path):
    (tmp_path / "folder").mkdir()
    os.mkfifo(tmp_path / "pipe")
    assert refusal(tmp_path, "absent.jpg") == "missing"
    assert refusal(tmp_path, "folder") == "not_a_file"
    assert refusal(tmp_path, "pipe") == "not_a_file"
    (tmp_path / "device").symlink_to("/dev/zero")
    assert refusal(tmp_path, "device", ImagePolicy(100, "ignore", "white", follow_links=True)) == "not_a_file"
    assert refusal(tmp_path, "a" * 300) == "unreadable"


def test_links_stay_inside_unless_they_are_followed(tmp_path):
    root, elsewhere = tmp_path / "root", tmp_path / "elsewhere"
    root.mkdir()
    elsewhere.mkdir()
    saved(elsewhere, RAMP, "far.png")
    saved(root, RAMP, "near.png")
    (root / "in.png").symlink_to("near.png")
    (root / "out.png").symlink_to(elsewhere / "far.png")
    (root / "folder").symlink_to(elsewhere)
    (root / "loop.png").symlink_to("loop.png")
    (root / "dangling.png").symlink_to("nowhere.png")
    following = ImagePolicy(10_000, "ignore", "white", follow_links=True)
    np.testing.assert_array_equal(load(root, "in.png", POLICY).pixels, RAMP)
    for name in ("out.png", "folder/far.png", "../elsewhere/far.png"):
        assert refusal(root, name) == "outside"
    np.testing.assert_array_equal(load(root, "out.png", following).pixels, RAMP)
    for policy in (POLICY, following):
        assert refusal(root, "loop.png", policy) == "unreadable"
        assert refusal(root, "dangling.png", policy) == "missing"


def test_a_file_that_changed_is_refused(tmp_path):
    name = saved(tmp_path, RAMP)
    known = digest(tmp_path, name, POLICY)
    assert load(tmp_path, name, POLICY, known).sha256 == known
    saved(tmp_path, RAMP[::-1], name)
    assert refusal(tmp_path, name, sha256=known) == "changed"
