"""uqlib: how far can a pretrained vision model be trusted?

A folder is a family, a file a method, and the `__init__` of a family its public list:

    from uqlib.metrics import aurc
    from uqlib.calibrate import fit_temperature
    from uqlib.combine import fit_duo

FAMILIES are in the order of their ranks: a file imports from its own family and from those before it, never from one
behind. Nothing is imported here, so that `import uqlib` costs nothing and the metrics never wait for timm.
"""

from importlib.metadata import PackageNotFoundError, version

FAMILIES = (
    "base",
    "files",
    "solve",
    "metrics",
    "calibrate",
    "combine",
    "bayes",
    "difficulty",
    "judge",
    "label_noise",
    "imbalance",
    "losses",
    "images",
    "networks",
    "heads",
    "store",
    "training",
    "attack",
    "uncertainty",
    "papers",
    "experiments",
    "evidence",
    "report",
    "book",
    "commands",
)

try:
    __version__ = version("uqlib")
except PackageNotFoundError:  # a checkout on the path that was never installed
    __version__ = "0.1.0"


def __getattr__(name: str) -> object:
    """`uqlib.load_uncertainty`, imported when it is asked for."""
    if name == "load_uncertainty":
        from uqlib.uncertainty import load_uncertainty

        return load_uncertainty
    raise AttributeError(f"module 'uqlib' has no attribute {name!r}")
