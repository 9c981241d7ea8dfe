"""Weather: snow, frost, fog, and drops on the lens."""

from functools import lru_cache

import numpy as np
from jaxtyping import Bool, Float

from uqlib.base.extras import named
from uqlib.images.corruptions.stacks import Fields, Rngs, Stack, draw_each, enlarge, smear

with named():
    from scipy import ndimage

# mean and standard deviation of red, green and blue over each of the generators' five frost photographs
_FROST_COLOURS = (
    ((78, 149, 166), (27, 16, 15)),
    ((201, 205, 214), (21, 22, 23)),
    ((201, 205, 214), (21, 22, 23)),
    ((138, 153, 165), (28, 28, 30)),
    ((112, 123, 135), (44, 43, 42)),
)


def snow(x: Stack, constant: tuple, rngs: Rngs) -> Stack:
    """A whitened scene behind flakes that fall along streaks."""
    mean, spread, zoom, threshold, radius, sigma, share = constant
    flakes = draw_each(rngs, lambda rng: rng.standard_normal(x.shape[1:3], np.float32)) * np.float32(spread) + mean
    degrees = draw_each(rngs, lambda rng: rng.uniform(-135, -45))
    flakes = enlarge(flakes.astype(np.float32), zoom)
    flakes = smear(np.where(flakes < threshold, 0, np.clip(flakes, 0, 1)), radius, sigma, degrees)
    grey = x @ np.array([0.299, 0.587, 0.114], np.float32)
    white = np.maximum(x, 1.5 * grey[..., None] + 127.5)
    return share * x + (1 - share) * white + 255 * (flakes + flakes[:, ::-1, ::-1])[..., None]


def frost(x: Stack, constant: tuple, rngs: Rngs) -> Stack:
    """A window with ice crystals: a random piece of one of five drawn sheets, added to the image."""
    image_share, ice_share, shrink = constant
    sheets = _frost_sheets(shrink)
    sheet, top, left = draw_each(rngs, lambda rng: rng.integers(sheets.shape[:3])).T[:, :, None, None]
    rows = (top + np.arange(x.shape[1])[:, None]) % sheets.shape[1]
    columns = (left + np.arange(x.shape[2])) % sheets.shape[2]
    return image_share * x + ice_share * sheets[sheet, rows, columns]


@lru_cache
def _frost_sheets(shrink: int) -> Float[np.ndarray, "sheets side side 3"]:
    """Five sheets of ice that repeat without a seam, in the colours of the generators' photographs."""
    sheets = []
    for number, (mean, spread) in enumerate(_FROST_COLOURS):
        ice = _ice(np.random.default_rng(number), side=640)
        sheet = np.clip(np.array(mean) + np.array(spread) * ice[..., None], 0, 255)
        sheets.append(sheet[shrink // 2 :: shrink, shrink // 2 :: shrink])  # not averaged: nor do the generators
    return np.stack(sheets).astype(np.float32)


def _ice(rng: np.random.Generator, side: int, crystals: int = 400) -> Float[np.ndarray, "side side"]:
    """Feathers of ice on a cloudy pane, with mean 0 and standard deviation 1."""
    turn = np.deg2rad([-55, 55])[:, None]  # barbs leave the stem on both sides, (2, 1)
    barb = np.linspace(0, 1, 60)  # along the barb, (60,)
    pane = np.zeros((side, side))
    for _ in range(crystals):
        angle, length, light = rng.uniform(0, 2 * np.pi), side * rng.uniform(0.04, 0.2), rng.uniform(0.3, 1)
        stem = np.linspace(0, 1, int(length / rng.uniform(3, 7)) + 2)[:, None, None]  # one barb every 3 to 7 pixels
        reach = 0.5 * length * (1 - stem) * rng.uniform(0.2, 1, (len(stem), 2, 1)) * barb
        row = rng.uniform(0, side) + stem * length * np.sin(angle) + reach * np.sin(angle + turn)
        column = rng.uniform(0, side) + stem * length * np.cos(angle) + reach * np.cos(angle + turn)
        pane[row.astype(int) % side, column.astype(int) % side] = light * (1 - 0.7 * barb)  # the latest lies on top
    ice = ndimage.gaussian_filter(pane, 0.6, mode="wrap")
    for sigma, weight in ((1, 0.2), (6, 0.25), (40, 0.4)):
        cloud = ndimage.gaussian_filter(rng.standard_normal((side, side)), sigma, mode="wrap")
        ice = ice + weight * pane.std() * cloud / cloud.std()
    return (ice - ice.mean()) / ice.std()


def fog(x: Stack, constant: tuple, rngs: Rngs) -> Stack:
    """Drifting haze: a plasma fractal added to the image, which is dimmed so as not to overflow."""
    thickness, decay = constant
    thickness = np.float32(255 * thickness)
    brightest = x.max((1, 2, 3), keepdims=True)
    side = 1 << (max(x.shape[1:3]) - 1).bit_length()  # the first power of two that covers the image
    haze = _plasma(draw_each(rngs, lambda rng: rng.uniform(-1, 1, (side, side))), decay)
    haze = haze[:, : x.shape[1], : x.shape[2], None]
    return (x + thickness * haze) * (brightest / (brightest + thickness))


def _plasma(noise: Fields, decay: float) -> Fields:
    """Diamond-square heights in [0, 1] on a torus, from uniform noise in [-1, 1] that is used up in order."""
    n, side, _ = noise.shape
    heights, noise = np.zeros_like(noise), noise.reshape(n, -1)
    step, strength, used = side, 1.0, 0

    def rough(total: np.ndarray) -> np.ndarray:
        nonlocal used
        used += total[0].size
        return total / 4 + strength * noise[:, used - total[0].size : used].reshape(total.shape)

    while step >= 2:
        half = step // 2
        corner = heights[:, ::step, ::step]
        above = corner + np.roll(corner, -1, 1)
        centre = heights[:, half::step, half::step] = rough(above + np.roll(above, -1, 2))
        heights[:, ::step, half::step] = rough(centre + np.roll(centre, 1, 1) + corner + np.roll(corner, -1, 2))
        heights[:, half::step, ::step] = rough(centre + np.roll(centre, 1, 2) + corner + np.roll(corner, -1, 1))
        step, strength = half, strength / decay**2  # there the amplitude is the square of what decays
    heights -= heights.min((1, 2), keepdims=True)
    return (heights / heights.max((1, 2), keepdims=True)).astype(np.float32)


def spatter(x: Stack, constant: tuple, rngs: Rngs) -> Stack:
    """Drops on the lens: water that glints, or mud that covers."""
    mean, spread, sigma, threshold, strength, mud = constant
    liquid = mean + spread * draw_each(rngs, lambda rng: rng.standard_normal(x.shape[1:3], np.float32))
    liquid = ndimage.gaussian_filter(liquid.astype(np.float32), (0, sigma, sigma), mode="nearest")
    if mud:
        cover = (liquid > threshold).astype(np.float32)
        cover = ndimage.gaussian_filter(cover, (0, strength, strength), mode="nearest")
        cover = np.where(cover < 0.8, 0, cover)[..., None]
        return x * (1 - cover) + cover * np.array([63, 42, 20], np.float32)
    glint = np.floor(255 * np.where(liquid < threshold, 0, liquid))
    glint *= _relief(_edges(glint, 50, 150))
    glint /= np.maximum(glint.max((1, 2), keepdims=True), 1)
    return x + strength * glint[..., None] * np.array([175, 238, 238], np.float32)


def _edges(field: Fields, low: float, high: float) -> Bool[np.ndarray, "n h w"]:
    """Canny's edges: crests of the gradient above `low` that hang together with a point above `high`."""
    right, down = (  # Sobel's filter; SciPy's would smooth across images
        ndimage.correlate1d(
            ndimage.correlate1d(field, [1, 2, 1], 3 - axis, mode="nearest"), [-1, 0, 1], axis, mode="nearest"
        )
        for axis in (2, 1)
    )
    height = np.abs(right) + np.abs(down)
    lying = np.abs(down) < np.tan(np.pi / 8) * np.abs(right)
    standing = np.abs(down) > np.tan(3 * np.pi / 8) * np.abs(right)
    falling = right * down >= 0
    around = np.pad(height, ((0, 0), (1, 1), (1, 1)))
    h, w = field.shape[1:]

    def crest(dy: int, dx: int) -> np.ndarray:
        before = around[:, 1 - dy : h + 1 - dy, 1 - dx : w + 1 - dx]
        after = around[:, 1 + dy : h + 1 + dy, 1 + dx : w + 1 + dx]
        return (height > before) & ((height > after) | ((height == after) & (dx * dy == 0)))

    diagonal = np.where(falling, crest(1, 1), crest(1, -1))
    crests = np.where(lying, crest(0, 1), np.where(standing, crest(1, 0), diagonal)) & (height > low)
    patch, count = ndimage.label(crests, [np.zeros((3, 3)), np.ones((3, 3)), np.zeros((3, 3))])
    strong = np.zeros(count + 1, bool)
    strong[patch[crests & (height > high)]] = True
    return strong[patch]


def _relief(edges: Bool[np.ndarray, "n h w"]) -> Fields:
    """How drops within these edges catch the light: the distance to the edge, equalised and embossed, in [0, 255]."""
    far = ndimage.distance_transform_edt(~edges, sampling=(1e6, 1, 1))  # edges of other images are out of reach
    far = np.floor(ndimage.uniform_filter(np.minimum(far, 20), (0, 3, 3), mode="mirror") + 1e-6)  # a whole mean stays
    count = np.stack([(far == level).sum((1, 2)) for level in range(21)], 1)
    count[np.arange(len(far)), (count > 0).argmax(1)] = 0  # the least level stays black
    level = np.rint(255 * count.cumsum(1) / np.maximum(count.sum(1, keepdims=True), 1))
    level = level[np.arange(len(far))[:, None, None], far.astype(np.int64)]
    emboss = np.array([[[-2, -1, 0], [-1, 1, 1], [0, 1, 2]]])
    lit = np.clip(ndimage.correlate(level, emboss, mode="mirror"), 0, 255)
    return np.rint(ndimage.uniform_filter(lit, (0, 3, 3), mode="mirror")).astype(np.float32)
