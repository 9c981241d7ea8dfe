"""What the library needs beyond its core, and how to install it: a missing package is named with its extra.

    with named():
        import timm

raises "this needs timm, which is not installed: pip install 'uqlib[images]'".
"""

from collections.abc import Iterator
from contextlib import contextmanager

EXTRAS = {
    "timm": "images",
    "torchvision": "images",
    "PIL": "images",
    "sklearn": "images",
    "scipy": "images",
    "matplotlib": "plots",
    "seaborn": "plots",
    "xarray": "compare",
    "pandas": "compare",
    "laplace": "laplace",
    "art": "attack",
    "imblearn": "imbalance",
    "papermill": "book",
    "nbformat": "book",
    "nbclient": "book",
    "msgspec": "book",
}  # by the name that is imported


@contextmanager
def named() -> Iterator[None]:
    """Imports inside say which extra holds a package that is missing; any other error is left as it is.

    Raises:
        ModuleNotFoundError: if a package of an extra is not installed.
    """
    try:
        yield
    except ModuleNotFoundError as error:
        missing = (error.name or "").split(".")[0]
        if missing not in EXTRAS or str(error).startswith("this needs"):
            raise
        message = f"this needs {missing}, which is not installed: pip install 'uqlib[{EXTRAS[missing]}]'"
        raise ModuleNotFoundError(message, name=error.name) from None
