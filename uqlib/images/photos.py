"""Image files as a viewer shows them, or refused.

`read_image` turns one file into uint8 (h, w, 3):

- turned upright as its EXIF orientation says;
- grey of 16 bits scaled, 65,535 to 255 and to the nearest level, where Pillow cuts off; 12-bit TIFF alike; colours of
  16 bits lose their low byte; floating-point grey must lie in [0, 1];
- CMYK, YCCK, YCbCr and palettes become RGB; what is transparent lies on white;
- of an animation the first frame, of several pages the first page;
- colour profiles are not applied, nor were they by the loaders that published networks were trained with.

Refused, by name: whatever Pillow cannot read whole, a PNG whose checksums are wrong, CIELAB, integers of 32 bits (no
white is agreed), and more than PIL.Image.MAX_IMAGE_PIXELS pixels. JPEG, BMP, PPM and WebP bear no checksum: a flipped
bit in their pixels is another picture, here as in any viewer.
"""

import io
import os
from typing import Any

import numpy as np
from jaxtyping import UInt8

from uqlib.base.extras import named

with named():
    from PIL import Image, ImageOps

EXTENSIONS = (".jpg", ".jpeg", ".png", ".ppm", ".bmp", ".pgm", ".tif", ".tiff", ".webp")  # torchvision's
# Pillow would also run Ghostscript, or follow links in a description; a file may be any of these whatever its ending
FORMATS = ("JPEG", "PNG", "PPM", "BMP", "TIFF", "WEBP", "GIF")
PLAIN = ("1", "L", "P", "RGB", "RGBX", "CMYK", "YCbCr")  # what Pillow turns into RGB as a viewer does
CLEAR = ("LA", "La", "PA", "RGBA", "RGBa")  # with transparency
BITS, PHOTOMETRIC = 258, 262  # tags of TIFF
Pixels = UInt8[np.ndarray, "h w 3"]


def read_image(path: str | os.PathLike) -> Pixels:
    """An image file as a viewer shows it; the top of this file says how.

    Raises:
        FileNotFoundError: if there is no such file; other OSErrors if it cannot be opened. All name it.
        ValueError: if it is no whole image, or none that has one meaning; the message names it.
    """
    with open(path, "rb") as stream:
        return decode(stream.read(), path)


def decode(content: bytes, name: str | os.PathLike) -> Pixels:
    """The image in the content of a file; `name` is what errors call it."""
    try:
        if content.startswith(b"\x89PNG"):
            with _open(content) as image:
                image.verify()  # compares the checksums, which reading the pixels does not; Pillow wants a new start then
        with _open(content) as image:
            image.load()
            ImageOps.exif_transpose(image, in_place=True)
            return np.asarray(_rgb(image, content))
    except Exception as error:  # a damaged file raises nearly anything in Pillow
        raise ValueError(
            f"{os.fspath(name)!r} is no image that can be shown ({_reason(error, content)}); save it again as a PNG or "
            "JPEG in RGB, or take it out"
        ) from error


def size_of(path: str | os.PathLike) -> tuple[int, int]:
    """Height and width that the header of an image file announces, upright or not; no pixel is read."""
    try:
        with Image.open(path, formats=FORMATS) as image:
            return image.height, image.width
    except FileNotFoundError:
        raise
    except Exception as error:
        raise ValueError(f"{os.fspath(path)!r} is no image ({error}); save it again, or take it out") from error


def _open(content: bytes) -> Image.Image:
    image = Image.open(io.BytesIO(content), formats=FORMATS)
    most = Image.MAX_IMAGE_PIXELS
    if most is not None and image.width * image.height > most:  # Pillow warns up to twice as many
        raise ValueError(f"{image.width} x {image.height} pixels are more than PIL.Image.MAX_IMAGE_PIXELS = {most}")
    return image


def _reason(error: Exception, content: bytes) -> str:
    if not content:
        return "the file is empty"
    if isinstance(error, Image.UnidentifiedImageError):
        return f"its content is none of {', '.join(FORMATS)}, or of a kind that Pillow lacks"
    return f"{error or type(error).__name__}"


def _rgb(image: Image.Image, content: bytes) -> Image.Image:
    if image.mode.startswith("I") or image.mode == "F":
        return _from_deep_grey(image)
    if image.format == "PNG" and "transparency" in image.info and image.mode in ("L", "RGB"):
        image.info["transparency"] = _clear(image, depth=content[24])  # in the first chunk, as the format prescribes
    if image.mode in CLEAR or image.has_transparency_data:
        image = image.convert("LA") if image.mode == "La" else image
        return Image.alpha_composite(Image.new("RGBA", image.size, "white"), image.convert("RGBA")).convert("RGB")
    if image.mode not in PLAIN:
        raise ValueError(f"its colours are {image.mode}")
    return image.convert("RGB")


def _clear(image: Image.Image, depth: int) -> Any:
    """The one colour of a PNG that is transparent, on the scale of its pixels in Pillow."""
    clear = image.info["transparency"]
    if depth == 16:
        raise ValueError("one of its 16-bit colours is transparent, and Pillow keeps 8 bits of each")
    return clear * 255 // (2**depth - 1) if image.mode == "L" else clear


def _from_deep_grey(image: Image.Image) -> Image.Image:
    """Grey of more than 8 bits, or in floats."""
    values, tags = np.asarray(image), getattr(image, "tag_v2", {})
    if image.mode == "I" and image.format == "TIFF":
        raise ValueError("its whole numbers have a sign or 32 bits, and no white is agreed for these")
    if image.mode == "F":
        least, most = values.min(), values.max()
        if not 0 <= least <= most <= 1:  # NaN is in no interval
            raise ValueError(f"its floats reach from {least:g} to {most:g}; they must lie in [0, 1]")
        level = np.rint(255 * values.astype(np.float64)).astype(np.uint8)
    else:
        white = 2 ** tags.get(BITS, (16,))[0] - 1
        level = ((values.astype(np.uint32) * 255 + white // 2) // white).astype(np.uint8)
    if tags.get(PHOTOMETRIC) == 0:  # white is zero, which Pillow heeds only up to 8 bits
        level = 255 - level
    if "transparency" in image.info:
        level = np.where(values == image.info["transparency"], np.uint8(255), level)
    return Image.fromarray(level).convert("RGB")


def ink(images: np.ndarray, side: int = 48) -> np.ndarray:
    """Small white signs on black as ink on paper, smoothly enlarged: for the eye, not for a network.

    Args:
        images: uint8 (n, h, w, 3).
        side: of what comes back, uint8 (n, side, side, 3).
    """
    signs = [Image.fromarray(255 - each).resize((side, side), Image.Resampling.LANCZOS) for each in images]
    return np.stack([np.asarray(each) for each in signs])
