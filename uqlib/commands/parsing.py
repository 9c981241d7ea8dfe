"""Parsers of the command line: what every command says the same way."""

import argparse
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any, NoReturn

from uqlib.files.whole import checkouts_around


class Parser(argparse.ArgumentParser):
    """A parser whose complaint is an error like any other: one line."""

    def error(self, message: str) -> NoReturn:
        raise ValueError(f"{message}; see {self.prog} --help")


def whole_number(least: int) -> Callable[[str], int]:
    """A reader of whole numbers from a bound on, for argparse."""

    def read(text: str) -> int:
        if not re.fullmatch(r"[+-]?\d{1,18}", text, re.ASCII) or int(text) < least:
            raise argparse.ArgumentTypeError(f"it must be a whole number of at least {least}; got {text!r}")
        return int(text)

    return read


def add_group(commands: Any, name: str, what: str) -> Any:
    """A command that has commands of its own."""
    return commands.add_parser(name, help=what, description=what).add_subparsers(required=True, metavar="COMMAND")


def add_command(commands: Any, name: str, do: Callable) -> argparse.ArgumentParser:
    """A command that calls a function, whose docstring is its help."""
    parser = commands.add_parser(name, help=(do.__doc__ or name).splitlines()[0], description=do.__doc__)
    parser.set_defaults(do=do)
    return parser


def add_root(parser: argparse.ArgumentParser) -> argparse.ArgumentParser:
    """The option that names the folder of a store."""
    parser.add_argument("--root", help="folder of the store; default: $UQLIB_STORE or the cache, and data/store")
    return parser


def add_split(parser: argparse.ArgumentParser) -> argparse.ArgumentParser:
    """The arguments that name a split of images, corrupted or not."""
    parser.add_argument("dataset")
    parser.add_argument("split", nargs="?", default="test")
    parser.add_argument("--corruption", help="one of the nineteen, such as fog")
    parser.add_argument("--severity", type=int, help="of the corruption, 1 to 5; default 3")
    return parser


def add_asked(parser: argparse.ArgumentParser) -> argparse.ArgumentParser:
    """The arguments that name a network and what it is asked about."""
    parser.add_argument("network", help="any name that timm knows, or one of uqlib.networks")
    parser.add_argument("--weights", default="pretrained", help="pretrained, or a safetensors or torch file")
    return add_root(add_split(parser))


def root_of(args: argparse.Namespace) -> str | None:
    """The folder of a store that is read: it must be there."""
    if args.root is not None and not Path(args.root).is_dir():
        raise FileNotFoundError(f"there is no folder {args.root}; --root takes the folder of a store")
    return args.root


def find_checkout() -> Path:
    """The folder of the checkout in which this is called, from any folder of it."""
    for folder in checkouts_around(Path.cwd()):
        if (folder / "data/ledger").is_dir():
            return folder
    raise FileNotFoundError(f"there is no data/ledger in {Path.cwd()} or above; call this in a checkout of the book")


def choose_device(name: str | None) -> str:
    """The device that is asked for, if this machine has it; a GPU where nobody asks."""
    import torch

    there = {"cpu": 1, "cuda": torch.cuda.device_count(), "mps": int(torch.backends.mps.is_available())}
    if name is None:
        return next(kind for kind in ("cuda", "mps", "cpu") if there[kind])
    kind, _, number = name.partition(":")
    if kind not in there or (number and not number.isdigit()) or int(number or 0) >= there[kind]:
        raise ValueError(f"--device is {name!r}; this machine has {', '.join(k for k, n in there.items() if n)}")
    return name
