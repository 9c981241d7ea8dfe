"""Damaged files of every kind that holds images: a named error, or pixels that an independent reading gives too.

UQLIB_FUZZ=10000 pytest tests/test_fuzz_images.py    so many cases a kind, instead of a few
"""

import io
import json
import os
import shutil

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import Image, ImageOps

from uqlib.images import decode, load_images, verify_images, write_prepared

CASES = int(os.environ.get("UQLIB_FUZZ", "40"))
fuzz = settings(max_examples=CASES, deadline=None, database=None, suppress_health_check=list(HealthCheck))
pytestmark = pytest.mark.filterwarnings("ignore")  # Pillow warns of much that it reads all the same

RGB = np.random.default_rng(0).integers(0, 256, (9, 11, 3), dtype=np.uint8)
DEEP = np.linspace(0, 65535, 99).reshape(9, 11).astype(np.uint16)


def written(array, format, **options):
    stream = io.BytesIO()
    Image.fromarray(array).save(stream, format, **options)
    return stream.getvalue()


EXIF = Image.Exif()
EXIF[0x0112] = 6
FILES = {
    "PNG": written(RGB, "PNG"),
    "PNG of 16 bits": written(DEEP, "PNG"),
    "PNG, palette": written(RGB[..., 0] % 7, "PNG", transparency=3),
    "JPEG": written(RGB, "JPEG"),
    "JPEG, turned": written(RGB, "JPEG", exif=EXIF, progressive=True),
    "TIFF": written(RGB, "TIFF"),
    "TIFF of 16 bits": written(DEEP, "TIFF"),
    "TIFF, floats": written((DEEP / 65535).astype(np.float32), "TIFF"),
    "TIFF, deflated": written(RGB, "TIFF", compression="tiff_adobe_deflate"),
    "BMP": written(RGB, "BMP"),
    "WebP": written(RGB, "WEBP"),
    "WebP, lossless": written(RGB, "WEBP", lossless=True, exif=EXIF),
    "PPM": written(RGB, "PPM"),
    "PGM of 16 bits": written(DEEP, "PPM"),
    "GIF": written(RGB[..., 0], "GIF"),
}
CHECKED = [kind for kind in FILES if kind.startswith("PNG")]  # bear checksums: other pixels are never given


def outcome(call, *args, **options):
    """What it gives, or None and the message of its refusal; any other error goes on."""
    try:
        return call(*args, **options), ""
    except ValueError as error:
        return None, str(error)


@st.composite
def damages(draw, content):
    """The bytes with some changed, cut out, doubled or cut off."""
    damaged = bytearray(content)
    for _ in range(draw(st.integers(1, 3))):
        where = draw(st.integers(0, max(0, min(len(damaged), draw(st.sampled_from([40, 10**6]))) - 1)))
        kind = draw(st.sampled_from(["flip", "byte", "cut off", "cut out", "double"]))
        length = draw(st.integers(1, 12))
        if kind == "flip" and damaged:
            damaged[where] ^= 1 << draw(st.integers(0, 7))
        elif kind == "byte" and damaged:
            damaged[where] = draw(st.sampled_from([0, 1, 127, 128, 255]))
        elif kind == "cut off":
            del damaged[where:]
        elif kind == "cut out":
            del damaged[where : where + length]
        else:
            damaged[where:where] = damaged[where : where + length]
    return bytes(damaged)


def shown(content):
    """What Pillow alone gives, in RGB on white; None for grey of more than 8 bits, which it cuts off."""
    with Image.open(io.BytesIO(content)) as image:
        if image.mode.startswith("I") or image.mode == "F":
            return None
        image = ImageOps.exif_transpose(image)
        clear = image.mode in ("RGBA", "LA", "PA", "RGBa", "La") or "transparency" in image.info
        if not clear:
            return np.asarray(image.convert("RGB"))
        white = Image.new("RGBA", image.size, (255, 255, 255, 255))
        return np.asarray(Image.alpha_composite(white, image.convert("RGBA")).convert("RGB"))


@pytest.mark.parametrize("kind", FILES)
def test_damaged_images_are_named_or_shown_as_they_are(kind, monkeypatch):
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 10**6)  # so that a case costs no second
    sound = decode(FILES[kind], "sound")

    @fuzz
    @given(damages(FILES[kind]))
    def check(content):
        found, refusal = outcome(decode, content, "here/a.png")
        if found is None:
            assert refusal.startswith("'here/a.png' is no image that can be shown (")
            return
        assert (found.dtype, found.shape[2:]) == (np.uint8, (3,))
        if kind in CHECKED:
            assert np.array_equal(found, sound)
        elif (expected := shown(content)) is not None:
            assert np.array_equal(found, expected)

    check()


PIXELS = np.random.default_rng(0).integers(0, 256, (5, 3, 4, 3), dtype=np.uint8)


@pytest.fixture(scope="module")
def written_set(tmp_path_factory):
    top = tmp_path_factory.mktemp("sets")
    write_prepared(
        top,
        PIXELS,
        [0, 1, 1, 0, 1],
        ["a", "b"],
        name="mine",
        split="all",
        extras={"votes": np.arange(10).reshape(5, 2)},
    )
    return top


def same(one, other):
    return all(
        np.array_equal(a, b)
        for a, b in [(one.images, other.images), (one.labels, other.labels), (one.index, other.index)]
        + [(one.extras[name], other.extras.get(name)) for name in one.extras]
    ) and (one.classes, one.name, one.split, one.digest) == (other.classes, other.name, other.split, other.digest)


@pytest.mark.parametrize("file", ["images.npy", "labels.npy", "votes.npy"])
def test_damaged_arrays_are_named(written_set, tmp_path, monkeypatch, file):
    monkeypatch.setenv("UQLIB_CACHE", str(tmp_path / "cache"))
    shutil.copytree(written_set, tmp_path / "w")
    path, sound = tmp_path / "w" / "mine" / "all" / file, load_images("mine", "all", root=written_set)

    @fuzz
    @given(damages(path.read_bytes()))
    def check(content):
        path.write_bytes(content)
        found, refusal = outcome(load_images, "mine", "all", root=tmp_path / "w")
        assert "mine/all" in refusal if found is None else same(found, sound)

    check()


def test_damaged_metas_are_named(written_set, tmp_path, monkeypatch):
    monkeypatch.setenv("UQLIB_CACHE", str(tmp_path / "cache"))
    shutil.copytree(written_set, tmp_path / "w")
    path, sound = tmp_path / "w" / "mine" / "all" / "meta.json", load_images("mine", "all", root=written_set)
    meta = json.loads(path.read_text(encoding="utf-8"))
    values = st.recursive(
        st.none() | st.booleans() | st.integers(-3, 10**20) | st.floats() | st.text(max_size=3),
        lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=3), inner, max_size=3),
        max_leaves=4,
    )

    def matter(content):
        """What load uses of a meta.json; the rest may say anything."""
        found = json.loads(content)
        used = {key: found[key] for key in ("name", "split", "classes", "count", "image_shape")}
        return used | {file: found["sha256"].get(file) for file in ("images.npy", "labels.npy", "votes.npy")}

    @fuzz
    @given(
        damages(path.read_bytes())
        | st.builds(lambda key, value: json.dumps(meta | {key: value}).encode(), st.sampled_from(sorted(meta)), values)
    )
    def check(content):
        path.write_bytes(content)
        faults = verify_images("mine", root=tmp_path / "w")
        found, refusal = outcome(load_images, "mine", "all", root=tmp_path / "w")
        if found is None:
            assert "mine/all" in refusal
            return
        assert found.classes == tuple(json.loads(content)["classes"])  # bytes of a name are not checked by anything
        assert same(found, sound) or matter(content) != matter(json.dumps(meta))
        assert np.array_equal(found.images, PIXELS)
        assert not {path.name for path in faults} & {"images.npy", "labels.npy", "votes.npy"}

    check()
