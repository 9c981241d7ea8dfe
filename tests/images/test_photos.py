"""Image files against pixels that NumPy made, files written byte by byte, and torchvision's ImageFolder."""

import io
import os
import struct
import sys
import zlib
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from PIL import Image
from torchvision.datasets import ImageFolder

from uqlib.images import Changed, Files, class_folders, decode, folders, ink, read_image, row_numbers, squares

RAMP = np.linspace(0, 65535, 600).reshape(20, 30).astype(np.uint16)
# round(value / 257) in rational arithmetic: 257 = 65535 / 255
LEVELS = np.array([[(2 * int(value) + 257) // 514 for value in row] for row in RAMP], np.uint8)
COLOURS = np.random.default_rng(0).integers(0, 256, (6, 5, 3), dtype=np.uint8)


def grey(levels):
    return np.repeat(np.asarray(levels, np.uint8)[..., None], 3, -1)


def written(image, format, **options):
    stream = io.BytesIO()
    (image if isinstance(image, Image.Image) else Image.fromarray(image)).save(stream, format, **options)
    return stream.getvalue()


def tiff(array, *, bits, photometric=1, sample_format=1, order="<", data=None):
    """A TIFF of one strip, written tag by tag."""
    data = array.astype(array.dtype.newbyteorder(order)).tobytes() if data is None else data
    entries = {256: (4, array.shape[1]), 257: (4, array.shape[0]), 258: (3, bits), 259: (3, 1), 262: (3, photometric)}
    entries |= {273: (4, 8), 277: (3, 1), 278: (4, array.shape[0]), 279: (4, len(data)), 339: (3, sample_format)}
    directory = struct.pack(f"{order}H", len(entries))
    for tag, (kind, value) in sorted(entries.items()):
        directory += struct.pack(f"{order}HHI", tag, kind, 1) + struct.pack(
            f"{order}{'HH' if kind == 3 else 'I'}", *([value, 0] if kind == 3 else [value])
        )
    start = b"II*\0" if order == "<" else b"MM\0*"
    return start + struct.pack(f"{order}I", 8 + len(data)) + data + directory + bytes(4)


def png(rows, *, depth, colour, extra=()):
    """A PNG written chunk by chunk: rows of packed bytes, none filtered."""

    def chunk(kind, body):
        return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))

    width = 8 * len(rows[0]) // (depth * {0: 1, 2: 3, 3: 1, 4: 2, 6: 4}[colour])
    header = struct.pack(">IIBBBBB", width, len(rows), depth, colour, 0, 0, 0)
    body = zlib.compress(b"".join(b"\0" + bytes(row) for row in rows))
    middle = b"".join(chunk(kind, content) for kind, content in extra)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + middle + chunk(b"IDAT", body) + chunk(b"IEND", b"")


# --------------------------------------------------------------------------------------------------- depth and colour


def pgm(array, most):
    return f"P5 {array.shape[1]} {array.shape[0]} {most}\n".encode() + array.astype(">u2").tobytes()


TWELVE = np.arange(4096, dtype=np.uint16).reshape(64, 64)
PACKED = np.array([[a >> 4, (a & 15) << 4 | b >> 8, b & 255] for a, b in TWELVE.reshape(-1, 2)], np.uint8).tobytes()
DEEP = {
    "16-bit PNG": (written(RAMP, "PNG"), LEVELS),
    "16-bit PGM": (pgm(RAMP, 65535), LEVELS),
    "PGM up to 1000": (pgm(np.arange(0, 1001, 20, dtype=np.uint16).reshape(3, 17), 1000), None),
    "16-bit TIFF": (tiff(RAMP, bits=16), LEVELS),
    "16-bit TIFF, big-endian": (tiff(RAMP, bits=16, order=">"), LEVELS),
    "16-bit TIFF, white is zero": (tiff(RAMP, bits=16, photometric=0), 255 - LEVELS),
    "8-bit TIFF, white is zero": (tiff(LEVELS, bits=8, photometric=0), 255 - LEVELS),
    "12-bit TIFF": (tiff(TWELVE, bits=12, data=PACKED), (TWELVE.astype(int) * 255 * 2 + 4095) // 8190),
    "float TIFF": (tiff((RAMP / 65535).astype(np.float32), bits=32, sample_format=3), LEVELS),
    "float TIFF, big-endian": (tiff((RAMP / 65535).astype(np.float32), bits=32, sample_format=3, order=">"), LEVELS),
    "float TIFF, white is zero": (
        tiff((RAMP / 65535).astype(np.float32), bits=32, sample_format=3, photometric=0),
        255 - LEVELS,
    ),
    "PFM": (b"Pf\n30 20\n-1.0\n" + (RAMP[::-1] / 65535).astype("<f4").tobytes(), LEVELS),
}


@pytest.mark.parametrize("kind", DEEP)
def test_deep_grey_keeps_its_levels(kind):
    content, expected = DEEP[kind]
    if expected is None:  # Pillow rounds to 65535 first
        expected = np.rint(np.arange(0, 1001, 20) * 255 / 1000).reshape(3, 17)
    assert np.array_equal(decode(content, "x"), grey(expected))


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (tiff(np.float32([[0, 255.0]]), bits=32, sample_format=3), "floats reach from 0 to 255; they must lie in"),
        (tiff(np.float32([[0, np.nan]]), bits=32, sample_format=3), "floats reach from nan to nan"),
        (tiff(np.float32([[-0.5, 0.5]]), bits=32, sample_format=3), "floats reach from -0.5 to 0.5"),
        (tiff(np.int32([[0, 70000]]), bits=32, sample_format=2), "a sign or 32 bits, and no white is agreed"),
        (tiff(np.uint32([[0, 70000]]), bits=32), "a sign or 32 bits, and no white is agreed"),
        (tiff(np.int16([[0, -5]]), bits=16, sample_format=2), "a sign or 32 bits, and no white is agreed"),
        (tiff(np.float64([[0, 1]]), bits=64, sample_format=3), "or of a kind that Pillow lacks"),
        (written(Image.new("LAB", (4, 4)), "TIFF"), "its colours are LAB"),
    ],
)
def test_depths_without_one_meaning_are_refused_by_name(content, reason):
    with pytest.raises(ValueError, match=rf"'photos/x.tif' is no image that can be shown \(.*{reason}"):
        decode(content, "photos/x.tif")


def test_colours_of_16_bits_lose_their_low_byte():
    deep = np.random.default_rng(1).integers(0, 65536, (4, 5, 3), dtype=np.uint16)
    high = (deep >> 8).astype(np.uint8)
    rows = [row.astype(">u2").tobytes() for row in deep]
    assert np.array_equal(decode(png(rows, depth=16, colour=2), "x"), high)
    ppm = b"P6 5 4 65535\n" + deep.astype(">u2").tobytes()
    assert np.abs(decode(ppm, "x").astype(int) - high).max() <= 1  # Pillow rounds these


def test_inks_are_subtracted_from_white():
    inks = np.array([[[0, 0, 0, 0], [255, 0, 0, 0], [0, 255, 0, 0], [0, 0, 255, 0], [0, 0, 0, 255]]], np.uint8)
    shown = np.array([[[255, 255, 255], [0, 255, 255], [255, 0, 255], [255, 255, 0], [0, 0, 0]]], np.uint8)
    image = Image.fromarray(np.repeat(np.repeat(inks, 16, 0), 16, 1), "CMYK")
    shown = np.repeat(np.repeat(shown, 16, 0), 16, 1).astype(int)
    assert np.array_equal(decode(written(image, "TIFF"), "x"), shown)
    assert np.abs(decode(written(image, "JPEG", quality=100), "x") - shown).max() <= 4  # Adobe's, stored inverted


def test_palettes_and_single_bits_are_looked_up():
    image = Image.fromarray(np.arange(30, dtype=np.uint8).reshape(6, 5) % 4, "P")
    colours = [[10, 20, 30], [200, 0, 7], [0, 255, 0], [255, 255, 255]]
    image.putpalette(np.ravel(colours).tolist())
    expected = np.array(colours, np.uint8)[np.arange(30).reshape(6, 5) % 4]
    for format in ("PNG", "BMP", "TIFF", "GIF"):
        assert np.array_equal(decode(written(image, format), "x"), expected)
    bits = np.random.default_rng(0).random((7, 9)) < 0.5
    for format in ("PNG", "BMP", "TIFF", "PPM"):
        assert np.array_equal(decode(written(Image.fromarray(bits), format), "x"), grey(255 * bits))


# ------------------------------------------------------------------------------------------------------- transparency


def on_white(colours, alpha):
    share = np.asarray(alpha, float)[..., None] / 255
    return share * colours + (1 - share) * 255


@pytest.mark.parametrize("format", ["PNG", "TIFF", "WEBP"])
def test_what_is_transparent_lies_on_white(format):
    alpha = np.arange(30, dtype=np.uint8).reshape(6, 5) * 8
    content = written(
        np.dstack([COLOURS, alpha]), format, **({"lossless": True, "exact": True} if format == "WEBP" else {})
    )
    assert np.abs(decode(content, "x") - on_white(COLOURS, alpha)).max() <= 1


def test_transparency_of_every_kind_of_png():
    alpha = np.array([[0, 255]], np.uint8)
    two = Image.fromarray(np.array([[0, 1]], np.uint8), "P")
    two.putpalette([1, 2, 3, 4, 5, 6])
    kinds = {
        "grey with alpha": (written(np.dstack([[[9, 9]], alpha]).astype(np.uint8), "PNG"), [[255] * 3, [9] * 3]),
        "palette, one colour": (written(two, "PNG", transparency=0), [[255] * 3, [4, 5, 6]]),
        "palette, alpha of each": (written(two, "PNG", transparency=bytes([0, 255])), [[255] * 3, [4, 5, 6]]),
        "GIF": (written(two, "GIF", transparency=1), [[1, 2, 3], [255] * 3]),
        "8-bit grey": (png([[7, 9]], depth=8, colour=0, extra=[(b"tRNS", b"\0\7")]), [[255] * 3, [9] * 3]),
        "1-bit grey": (png([[0b01000000]], depth=1, colour=0, extra=[(b"tRNS", b"\0\0")])),
        "2-bit grey": (
            png([[0b00011011]], depth=2, colour=0, extra=[(b"tRNS", b"\0\1")]),
            [[0] * 3, [255] * 3, [170] * 3, [255] * 3],
        ),
        "4-bit grey": (png([[0x3C]], depth=4, colour=0, extra=[(b"tRNS", b"\0\3")]), [[255] * 3, [204] * 3]),
        "16-bit grey": (png([[0, 7, 0, 9]], depth=16, colour=0, extra=[(b"tRNS", b"\0\7")]), [[255] * 3, [0] * 3]),
        "RGB": (
            png([[1, 2, 3, 1, 2, 4]], depth=8, colour=2, extra=[(b"tRNS", b"\0\1\0\2\0\3")]),
            [[255] * 3, [1, 2, 4]],
        ),
        "16-bit grey with alpha": (png([[9, 0, 0, 0, 9, 0, 255, 255]], depth=16, colour=4), [[255] * 3, [9] * 3]),
    }
    kinds["1-bit grey"] = (kinds["1-bit grey"], [[255] * 3] * 8)  # white, or transparent on white
    for kind, (content, expected) in kinds.items():
        assert decode(content, "x").tolist() == [expected], kind
    clear = png([[0, 1, 0, 2, 0, 3]], depth=16, colour=2, extra=[(b"tRNS", b"\0\1\0\2\0\3")])
    with pytest.raises(ValueError, match="one of its 16-bit colours is transparent"):
        decode(clear, "x")


# -------------------------------------------------------------------------------------------------------- orientation

# what a viewer does for each value of the EXIF orientation, by NumPy
UPRIGHT = {
    1: lambda x: x,
    2: lambda x: x[:, ::-1],
    3: lambda x: x[::-1, ::-1],
    4: lambda x: x[::-1],
    5: lambda x: x.swapaxes(0, 1),
    6: lambda x: np.rot90(x, -1),  # clockwise
    7: lambda x: x[::-1, ::-1].swapaxes(0, 1),
    8: lambda x: np.rot90(x),
}


@pytest.mark.parametrize("orientation", UPRIGHT)
def test_photographs_stand_upright(orientation):
    exif = Image.Exif()
    exif[0x0112] = orientation
    for format, options in {
        "PNG": {},
        "TIFF": {},
        "WEBP": {"lossless": True},
        "JPEG": {"quality": 100, "subsampling": 0},
    }.items():
        shown = decode(written(COLOURS, format, exif=exif, **options), "x").astype(int)
        assert shown.shape == UPRIGHT[orientation](COLOURS).shape
        assert np.abs(shown - UPRIGHT[orientation](COLOURS)).max() <= (6 if format == "JPEG" else 0)
    assert np.array_equal(decode(written(RAMP, "PNG", exif=exif), "x"), grey(UPRIGHT[orientation](LEVELS)))


def test_the_first_frame_and_the_first_page_are_taken():
    frames = [Image.fromarray(np.full((4, 5, 3), level, np.uint8)) for level in (10, 200)]
    for format in ("GIF", "WEBP", "TIFF", "PNG"):
        options = {"lossless": True} if format == "WEBP" else {}
        content = written(frames[0], format, save_all=True, append_images=frames[1:], **options)
        assert decode(content, "x").tolist() == np.full((4, 5, 3), 10).tolist()


# ------------------------------------------------------------------------------------------------------------- damage


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (b"", "the file is empty"),
        (b"not an image\n", "its content is none of JPEG, PNG, PPM, BMP, TIFF, WEBP, GIF"),
        (
            b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 1 1\n%%EndComments\n",
            "its content is none of",
        ),  # runs a program
        (written(COLOURS.repeat(40, 0).repeat(40, 1), "JPEG")[:-1000], "truncated"),
        (written(COLOURS, "PNG")[:-20], ""),
        (written(COLOURS, "BMP")[:-2], "truncated"),
    ],
)
def test_a_damaged_file_is_named(tmp_path, content, reason):
    (tmp_path / "a.jpg").write_bytes(content)
    with pytest.raises(ValueError, match=rf"'{tmp_path}/a.jpg' is no image that can be shown \(.*{reason}"):
        read_image(tmp_path / "a.jpg")
    with pytest.raises(FileNotFoundError, match=r"b\.jpg"):
        read_image(tmp_path / "b.jpg")


def test_a_flipped_bit_of_a_png_is_seen():
    content = written(np.random.default_rng(0).integers(0, 256, (40, 40, 3), dtype=np.uint8), "PNG")
    for place in range(60, len(content), 97):
        changed = bytearray(content)
        changed[place] ^= 4
        with pytest.raises(ValueError, match="is no image that can be shown"):
            decode(bytes(changed), "x")


def test_a_bomb_is_refused_not_warned_of(monkeypatch):
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 25)
    with pytest.raises(ValueError, match=r"'x' .*5 x 6|'x' .*30 pixels"):  # more than is allowed, less than twice
        decode(written(COLOURS, "PNG"), "x")
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 10)
    with pytest.raises(ValueError, match="'x' is no image that can be shown"):
        decode(written(COLOURS, "PNG"), "x")
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 30)
    assert np.array_equal(decode(written(COLOURS, "PNG"), "x"), COLOURS)


def test_the_ending_says_nothing_about_the_content(tmp_path):
    (tmp_path / "a.JPG").write_bytes(written(COLOURS, "PNG"))
    assert np.array_equal(read_image(tmp_path / "a.JPG"), COLOURS)


# ----------------------------------------------------------------------------------------------------------- sequences


@pytest.fixture
def files(tmp_path):
    for k in range(4):
        Image.fromarray(COLOURS // (k + 1)).save(tmp_path / f"{k}.png")
    return Files([tmp_path / f"{k}.png" for k in range(4)], stamped=True)


@pytest.mark.parametrize(
    "rows",
    [[2, 0], np.array([2, 0], np.uint16), torch.tensor([2, 0]), np.array([True, False, True, False]), slice(0, 3, 2)],
)
def test_rows_of_files_are_a_list(files, rows):
    expected = sorted([0, 2], reverse=not isinstance(rows, slice) and np.asarray(rows).dtype != bool)
    assert [image.tolist() for image in files[rows]] == [(COLOURS // (k + 1)).tolist() for k in expected]
    assert np.array_equal(files[torch.tensor([3])][0], COLOURS // 4)
    assert np.array_equal(files[-1], COLOURS // 4)
    assert np.array_equal(files[np.int64(1)], COLOURS // 2)
    assert len(list(files)) == 4
    with pytest.raises(IndexError):
        files[4]


def test_a_file_that_changed_after_loading_is_refused(files):
    other = files.select([3, 1])
    path = files.paths[1]
    status = os.stat(path)
    Image.fromarray(COLOURS[::-1]).save(path)
    os.utime(path, ns=(status.st_atime_ns, status.st_mtime_ns + 1))
    assert np.array_equal(files[3], COLOURS // 4)
    for some, row in ((files, 1), (other, 1)):
        with pytest.raises(ValueError, match=r"1\.png' has changed since the set was loaded; load it again"):
            some[row]
    assert np.array_equal(Files([path])[0], COLOURS[::-1])


def test_the_fingerprint_of_files_is_that_of_their_contents(files, tmp_path, monkeypatch):
    monkeypatch.setenv("UQLIB_CACHE", str(tmp_path / "cache"))
    again = Files(files.paths)
    assert again.fingerprint == files.fingerprint != files.select([1, 0, 2, 3]).fingerprint
    (tmp_path / "other").mkdir()
    moved = [tmp_path / "other" / f"{k}.png" for k in range(4)]
    for old, new in zip(files.paths, moved, strict=True):
        new.write_bytes(old.read_bytes())
    assert Files(moved).fingerprint == files.fingerprint
    Image.fromarray(COLOURS).save(moved[2])
    assert Files(moved).fingerprint != files.fingerprint


def test_changed_images_keep_their_numbers(files):
    changed = Changed(files, lambda image, number: image // 2 + number)
    assert np.array_equal(changed[3], COLOURS // 4 // 2 + 3)
    assert np.array_equal(changed.select([3, 1])[0], changed[3])
    assert np.array_equal(changed.select([3, 1]).select([1])[0], changed[1])
    assert np.array_equal(Changed([COLOURS], lambda image, _: 255 - image)[0], 255 - COLOURS)


def test_squares_are_the_middle(unchecked):
    wide = np.zeros((10, 30, 3), np.uint8)
    wide[:, 10:20] = (10, 200, 30)
    high = np.full((16, 8, 3), 7, np.uint8)
    both = squares([wide, high], 5)
    assert [image.shape for image in both] == [(5, 5, 3), (5, 5, 3)]
    assert (both[0][:, 2] == (10, 200, 30)).all()  # the filter reaches over the edge elsewhere
    assert (both[1] == 7).all()
    for size in (0, 2.0, "5", True):
        with pytest.raises((TypeError, ValueError), match="size must be a whole number"):
            squares([wide], size)


@pytest.mark.parametrize(
    ("rows", "error", "message"),
    [
        ([0, 5], ValueError, r"rows must lie in \[0, 5\); entry 1 is 5"),
        ([-1], ValueError, r"entry 0 is -1. Counted from the end\? Pass 5 \+ row"),
        (np.array([1, 0, 1, 1, 0], np.uint8), ValueError, "for a mask pass rows.astype"),
        (["a"], TypeError, "rows"),
        (3, ValueError, r"rows must be indices \(k,\) or a mask \(5,\)"),
    ],
)
def test_rows_without_a_meaning_are_refused(rows, error, message):
    with pytest.raises(error, match=message):
        row_numbers(rows, 5)


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16, np.uint32, np.uint64, np.int8, np.int64])
def test_rows_of_every_whole_type_are_taken(dtype):
    assert row_numbers(np.array([4, 0, 2], dtype), 5).tolist() == [4, 0, 2]
    pandas = pytest.importorskip("pandas")
    assert row_numbers(pandas.Series([4, 0], dtype=dtype), 5).tolist() == [4, 0]
    assert row_numbers([], 5).tolist() == []
    assert row_numbers([True, False, False, False, True], 5).tolist() == [0, 4]


# ------------------------------------------------------------------------------------------------------------- folders


@pytest.fixture
def folder(tmp_path):
    """Class folders, and a way to put images into them."""
    top = tmp_path / "photos"

    def put(*names):
        for k, name in enumerate(names):
            path = top / name
            path.parent.mkdir(parents=True, exist_ok=True)
            Image.fromarray(np.roll(COLOURS, k, 0)).save(path, "PNG")
        return top

    return put


NAMES = [
    "cat/b.png",
    "cat/a/z.png",
    "cat/a/x.PNG",
    "cat/a-b/y.Jpeg",
    "cat/a/deep/q.webp",
    "dog 2/ü 1.png",
    "dog 2/new\nline.png",
]
NAMES += ["Cat/1.png", "Cat/10.png", "Cat/2.png", "10/x.tif", "9/x.tif", "é/only.bmp"]


def test_order_is_that_of_torchvision(folder):
    top = folder(*NAMES)
    (top / "beside.png").write_bytes(b"")
    (top / "cat" / "notes.txt").touch()
    theirs, ours = ImageFolder(top), class_folders(top)
    assert ours.classes == tuple(theirs.classes)
    assert ours.labels.tolist() == theirs.targets
    assert [str(top / file) for file in ours.files] == [path for path, _ in theirs.samples]
    assert class_folders(f"{top}/").files == ours.files


def test_links_are_followed_as_by_torchvision(folder, tmp_path):
    top = folder("cat/a.png", "dog/b.png")
    (tmp_path / "elsewhere" / "more").mkdir(parents=True)
    (top / "cat" / "a.png").rename(tmp_path / "elsewhere" / "more" / "c.png")
    (top / "cat" / "link.png").symlink_to(tmp_path / "elsewhere" / "more" / "c.png")
    (top / "cat" / "sub").symlink_to(tmp_path / "elsewhere")
    (top / "bird").symlink_to(tmp_path / "elsewhere" / "more")
    theirs, ours = ImageFolder(top), class_folders(top)
    assert [(str(top / file), label) for file, label in zip(ours.files, ours.labels, strict=True)] == theirs.samples
    assert ours.files == ["bird/c.png", "cat/link.png", "cat/sub/more/c.png", "dog/b.png"]


def test_what_is_hidden_or_of_a_system_is_left_out(folder):
    top = folder("cat/a.png", "dog/b.png")
    expected = class_folders(top)
    hidden = [".ipynb_checkpoints/c.png", "__MACOSX/cat/._a.png", "@eaDir/x.png", "cat/._a.png", "cat/.hidden/d.png"]
    folder(*hidden, "cat/@eaDir/a.png", "cat/__MACOSX/b.png", "$RECYCLE.BIN/z.png")
    (top / ".git").mkdir()
    for name in ("cat/Thumbs.db", "cat/.DS_Store", ".DS_Store", "desktop.ini"):
        (top / name).touch()
    found = class_folders(top)
    assert (found.classes, found.files, found.labels.tolist()) == (("cat", "dog"), expected.files, [0, 1])


def test_folders_that_are_no_classes_are_refused_by_name(folder, tmp_path):
    top = folder("cat/a.png", "dog/b.png", "one class/c.png")
    (top / "empty").mkdir()
    (top / "notes").mkdir()
    (top / "notes" / "a.txt").touch()
    with pytest.raises(ValueError, match=r"photos holds 2 folders without an image.*: 'empty', 'notes'"):
        class_folders(top)
    with pytest.raises(
        ValueError, match=r"photos/cat must hold one folder of image files a class; it holds 0 folders, .* 1 beside"
    ):
        class_folders(top / "cat")
    with pytest.raises(FileNotFoundError, match=r"there is no folder .*a\.png, but a file of that name"):
        class_folders(top / "cat" / "a.png")
    assert class_folders(top.parent).classes == ("photos",)  # a single class may be meant


@pytest.mark.parametrize("name", ["cat/gone.png", "gone", "cat/gone"])
def test_a_broken_link_is_named(folder, name):
    top = folder("cat/a.png")
    (top / name).symlink_to("nowhere")
    with pytest.raises(ValueError, match=rf"photos/{name}' is a broken link, to 'nowhere'"):
        class_folders(top)


@pytest.mark.parametrize("target", [".", "..", "../..", "sub/.."])
def test_a_link_in_a_circle_ends_in_an_error(folder, target):
    top = folder("cat/a.png", "cat/sub/b.png")
    (top / "cat" / "round").symlink_to(target)
    with pytest.raises(ValueError, match=r"cat/round.*' leads back to a folder that it lies in"):
        class_folders(top)


@pytest.mark.skipif(sys.platform == "win32", reason="no pipes in folders")
def test_what_never_ends_is_not_opened(folder):
    top = folder("cat/a.png")
    os.mkfifo(top / "cat" / "b.png")
    with pytest.raises(ValueError, match=r"cat/b\.png' is no file that can be read"):
        class_folders(top)


def test_a_folder_that_may_not_be_read_is_no_empty_one(folder, monkeypatch):
    top = folder("cat/a.png", "cat/sub/b.png")
    real = os.scandir

    def guarded(path):
        if str(path).endswith("sub"):
            raise PermissionError(13, "Permission denied", str(path))
        return real(path)

    monkeypatch.setattr(folders.os, "scandir", guarded)
    with pytest.raises(PermissionError, match="cat/sub"):
        class_folders(top)


def test_a_hundred_thousand_files_cost_no_object_each(monkeypatch):
    names = [f"{k}.png" for k in range(1000)]
    plain = {"is_dir": lambda: False, "is_file": lambda: True, "is_symlink": lambda: False}
    entries = [SimpleNamespace(name=name, **plain) for name in names]
    monkeypatch.setattr(folders, "_entries", lambda folder: entries)
    monkeypatch.setattr(folders, "_place", lambda folder: (1, hash(folder)))
    found = folders._files("top/cat", "top")
    assert found == [f"cat/{name}" for name in sorted(names)]
    assert all(type(file) is str for file in found)


def test_ink_is_dark_where_a_sign_is_white():
    signs = np.zeros((2, 8, 8, 3), np.uint8)
    signs[1, :, 4:] = 255
    drawn = ink(signs, 24)
    assert drawn.shape == (2, 24, 24, 3)
    assert drawn.dtype == np.uint8
    assert (drawn[0] == 255).all()
    assert (drawn[1, :, 20:] == 0).all()
