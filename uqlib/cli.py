"""The command `uqlib`: run a notebook, look after the store and the data, print the ledger. Thin over the library."""

import argparse
import contextlib
import os
import re
import signal
import sys
import traceback
from collections.abc import Iterator, Sequence
from pathlib import Path
from types import FrameType
from typing import NoReturn

from uqlib import __version__
from uqlib.extras import named
from uqlib.scales import SCALES

ENDINGS = [signal.SIGINT, signal.SIGTERM, *([signal.SIGHUP] if hasattr(signal, "SIGHUP") else [])]


class Stopped(KeyboardInterrupt):
    """A signal asked the command to end; like a Ctrl-C it passes through all that catches errors."""


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command, and say in one line what went wrong.

    Returns:
        0; 1 if a run failed or the machine would not; 2 for a mistake of the user; 128 + the signal that stopped it.
    """
    for stream in (sys.stdout, sys.stderr):
        if hasattr(stream, "reconfigure"):  # text is UTF-8 whatever the locale
            stream.reconfigure(encoding="utf-8", errors="backslashreplace")
    debug = bool(os.environ.get("UQLIB_DEBUG"))
    with _stoppable() as came:
        try:
            args = _parser().parse_args(argv)
            debug |= args.debug
            with named():
                return args.do(args) or 0
        except BaseException as error:
            if came:  # an import or a library may have made another error of it
                print(f"uqlib: stopped by {came[0].name}; what was begun is not kept", file=sys.stderr)
                return 128 + came[0]
            if debug or not isinstance(error, Exception):
                raise
            return _failed(error)


@contextlib.contextmanager
def _stoppable() -> Iterator[list[signal.Signals]]:
    """While this lasts, the first signal to end raises Stopped and is noted; a second one ends the process at once."""
    came: list[signal.Signals] = []

    def stop(number: int, _: FrameType | None) -> None:
        came.append(signal.Signals(number))
        for each in before:
            signal.signal(each, signal.SIG_DFL)
        raise Stopped

    before = {}
    with contextlib.suppress(ValueError):  # only the main thread may
        for each in ENDINGS:
            if signal.getsignal(each) in (signal.SIG_DFL, signal.default_int_handler):  # one that is ignored stays so
                before[each] = signal.signal(each, stop)
    try:
        yield came
    finally:
        for each, handler in before.items():
            signal.signal(each, handler)


def _failed(error: Exception) -> int:
    """Say what went wrong; the exit code."""
    if isinstance(error, BrokenPipeError):  # the reader of a long list has seen enough
        sys.stderr.close()
        return 0
    code, what = 2, str(error)
    if isinstance(error, ModuleNotFoundError):
        code = 1
    elif isinstance(error, KeyError) and " " in str(error.args[0] if error.args else ""):  # a sentence of ours
        what = error.args[0]
    elif isinstance(error, OSError) and not isinstance(error, FileNotFoundError):
        code = 1
        if error.filename is None and error.strerror:
            what = f"{error.strerror} (writing or reading a file; is the disk full?)"
    elif isinstance(error, RuntimeError) and not isinstance(error, RecursionError | NotImplementedError):
        code = 1
    elif not isinstance(error, ValueError | TypeError | FileNotFoundError):
        place = traceback.extract_tb(error.__traceback__)[-1]
        code = 1
        what = (
            f"a fault of its own, {type(error).__name__}: {error} ({Path(place.filename).name}, line {place.lineno}). "
            "`uqlib --debug ...` shows where it comes from; please report it"
        )
    print(f"uqlib: {what}", file=sys.stderr)
    return code


def run(args: argparse.Namespace) -> None:
    """Execute a notebook with checked parameters; papermill does the work."""
    from uqlib import notebooks

    given = {}
    for name, text in args.parameter:
        if name in given:
            raise ValueError(f"parameter {name} is given twice: {given[name]!r} and {text!r}; give it once")
        given[name] = notebooks.parse_parameter(args.notebook, name, text)
    if args.scale:
        if given.get("scale", args.scale) != args.scale:
            raise ValueError(f"--scale is {args.scale!r} and -p scale {given['scale']!r}; give one of them")
        given["scale"] = args.scale
    notebooks.check_parameters(args.notebook, given)
    output = Path(args.output) if args.output else notebooks.default_output(args.notebook, given)
    if "record" in notebooks.parameters(args.notebook):
        given.setdefault("record", str(output.with_suffix(".json")))
    notebooks.execute(args.notebook, output, given, progress=sys.stderr.isatty())
    print(f"executed: {output}")
    if given.get("record") and Path(given["record"]).is_file():
        print(f"record:   {given['record']}")


def parameters(args: argparse.Namespace) -> None:
    """Print the parameters of a notebook."""
    from uqlib import notebooks

    for p in notebooks.parameters(args.notebook).values():
        print(f"{p.name} = {p.default!r}  ({p.kind})  {p.meaning}")


def pages(args: argparse.Namespace) -> None:
    """Write the computed pages of the book: ledger, summary, benchmarks, parameters, runs."""
    from uqlib import benchmarks, files, ledger, notebooks, pages, records

    folder = Path(args.results).absolute() if args.results else None
    with contextlib.chdir(_checkout()):
        folder = folder or Path("book/results")
        known = _notebooks("data/records", folder)
        ledgers = ledger.load_all("data/ledger")
        runs = records.read_runs("data/records", folder, notebooks=known)
        results = [result for run in runs for result in run["results"]]
        texts = {
            "ledger": "\n".join(pages.ledger_page(each, results) for each in ledgers),
            "summary": pages.ledger_summary(ledgers, results),
            "scales": pages.scales_table(),
            "benchmarks": pages.benchmarks_page(map(benchmarks.load, benchmarks.names())),
            "parameters": pages.parameters_page(notebooks.paths()),
            "runs": pages.runs_page(runs),
        }
        for name, text in texts.items():
            files.write_text(folder / f"{name}.md", text)


def book(args: argparse.Namespace) -> None:
    """Build the HTML of the book beside the one that stands, and put it in its place once it is whole."""
    from uqlib import build

    with contextlib.chdir(_checkout()):
        print(f"built: {build.html(args.html)}")


def show_ledger(args: argparse.Namespace) -> None:
    """Print every claim with its verdict and evidence."""
    from uqlib import ledger, records

    places = [Path(place).absolute() for place in args.records or []]
    for place in places:
        if not place.exists():
            raise FileNotFoundError(f"there is no file or folder {place}; --records takes records and folders of them")
    with contextlib.chdir(_checkout()):
        usual = ["data/records", "book/results"]
        results = records.read(*places) if places else records.read(*usual, notebooks=_notebooks(*usual))
        for each in ledger.load_all("data/ledger"):
            for row in each.rows:
                for v in ledger.verdicts(row, results):
                    print(f"{v.claim.id:24} {v.scale or '-':6} {v.verdict:18} {v.claim.text}")


def _notebooks(*places: str | Path) -> set[str]:
    """The notebooks of the book; records of others are named, for they do not count."""
    from uqlib import notebooks, records

    known = notebooks.names()
    for path in records.orphans(*places, notebooks=known):
        print(f"uqlib: {path} is of a notebook that is not there any more; it does not count", file=sys.stderr)
    return known


def store_list(args: argparse.Namespace) -> None:
    """Print what the store holds."""
    from uqlib import store

    entries = store.entries(root=_root_of(args))
    for entry in entries:
        size = entry.path.stat().st_size / 1e6
        print(f"{entry.key.network:20} {entry.key.dataset}.{entry.key.split:28} {entry.rows:8} rows {size:8.1f} MB")
    if not entries:
        print(f"nothing is stored in {args.root or 'the store'}; `uqlib store fill` fills it")


def store_verify(args: argparse.Namespace) -> int:
    """Check every byte of every file of the store."""
    from uqlib import store

    faults = store.verify(root=_root_of(args))
    for fault in faults.values():
        print(fault, file=sys.stderr)
    print(f"{len(store.roots(root=args.root))} folders searched, {len(faults)} damaged files")
    return 1 if faults else 0


def store_fill(args: argparse.Namespace) -> None:
    """Run a network over a data set and store what it says; resumes, and shares the work with other processes."""
    from uqlib import models, store

    network = models.create(args.network, weights=args.weights)
    images = _images(args)
    path = store.fill(
        store.key_of(args.network, network, images), network, images.images, images.labels, index=images.index,
        root=args.root, batch=args.batch, device=_device(args.device), worker=args.worker, workers=args.workers,
        foreign=args.foreign,
    )  # fmt: skip
    print(path or "this worker's part is done; others are still at theirs")


def store_explain(args: argparse.Namespace) -> None:
    """Say whether the store holds what a network would say on a data set, and if not, what differs."""
    from uqlib import models, store

    key = store.key_of(args.network, models.create(args.network, weights=args.weights), _images(args))
    print(store.explain(key, root=_root_of(args)))


def data_list(args: argparse.Namespace) -> None:
    """Print the data sets that are known by name, and their splits."""
    from uqlib import data

    for name, splits in data.SPLITS.items():
        print(f"{name:15} {', '.join(splits)}")
    print("folder:PATH     class folders of image files")


def data_show(args: argparse.Namespace) -> None:
    """Load a split, downloading it on first use, and print what it is."""
    images = _images(args)
    shape = getattr(images.images, "shape", f"{len(images)} files")
    print(f"{images.name}.{images.split}: {shape}, {len(images.classes)} classes, digest {images.digest[:12]}")


def data_verify(args: argparse.Namespace) -> int:
    """Compare the files of a prepared data set with their checksums."""
    from uqlib import data

    faults = data.verify(args.dataset)
    for path, fault in faults.items():
        print(f"{path} {fault}", file=sys.stderr)
    print(f"{args.dataset}: {len(faults)} damaged files")
    return 1 if faults else 0


def _images(args: argparse.Namespace):
    from uqlib import data

    images = data.load(args.dataset, args.split)
    if args.corruption is None:
        if args.severity is not None:
            raise ValueError(f"--severity is {args.severity}, of no corruption; name one by --corruption")
        return images
    from uqlib.corruptions import corrupt

    severity = 3 if args.severity is None else args.severity
    changed = corrupt(images.images, args.corruption, severity, rows=images.index)
    return images.with_images(changed, name=f"{images.name}_c", split=f"{args.corruption}-{severity}")


def _checkout() -> Path:
    """The folder of the checkout in which this is called, from any folder of it."""
    for folder in (Path.cwd(), *Path.cwd().parents):
        if (folder / "pyproject.toml").is_file() and (folder / "data/ledger").is_dir():
            return folder
    raise FileNotFoundError(f"there is no data/ledger in {Path.cwd()} or above; call this in a checkout of the book")


def _root_of(args: argparse.Namespace) -> str | None:
    """The folder of a store that is read: it must be there."""
    if args.root is not None and not Path(args.root).is_dir():
        raise FileNotFoundError(f"there is no folder {args.root}; --root takes the folder of a store")
    return args.root


def _device(name: str | None) -> str:
    """The device that is asked for, if this machine has it; a GPU where nobody asks."""
    import torch

    there = {"cpu": 1, "cuda": torch.cuda.device_count(), "mps": int(torch.backends.mps.is_available())}
    if name is None:
        return next(kind for kind in ("cuda", "mps", "cpu") if there[kind])
    kind, _, number = name.partition(":")
    if kind not in there or (number and not number.isdigit()) or int(number or 0) >= there[kind]:
        raise ValueError(f"--device is {name!r}; this machine has {', '.join(k for k, n in there.items() if n)}")
    return name


def _parser() -> argparse.ArgumentParser:
    parser = _Parser(prog="uqlib", description=__doc__)
    parser.add_argument("--version", action="version", version=f"uqlib {__version__}")
    parser.add_argument(
        "--debug", action="store_true", help="show where an error comes from; the same as UQLIB_DEBUG=1"
    )
    commands = parser.add_subparsers(required=True, metavar="COMMAND")

    one = _command(commands, "run", run)
    one.add_argument("notebook")
    one.add_argument("-p", dest="parameter", nargs=2, action="append", default=[], metavar=("NAME", "VALUE"))
    one.add_argument("--scale", help=f"one of {', '.join(SCALES)}; the same as -p scale")
    one.add_argument("-o", dest="output", help="executed copy; default build/runs/PAPER/NOTEBOOK.SCALE.ipynb, with "
                     "digits for other parameters")  # fmt: skip

    one = _command(commands, "parameters", parameters)
    one.add_argument("notebook")

    one = _command(commands, "ledger", show_ledger)
    one.add_argument("--records", nargs="*", help="records, or folders of them; default data/records book/results")

    one = _command(commands, "pages", pages)
    one.add_argument("--results", help="folder of the executed notebooks and their records; default book/results")

    one = _command(commands, "book", book)
    one.add_argument("--html", default="_build/html", help="folder of the book that stands; default _build/html")

    store = _group(commands, "store", "what networks said: list, verify, fill, explain")
    _root(_command(store, "list", store_list))
    _root(_command(store, "verify", store_verify))
    one = _asked(_command(store, "fill", store_fill))
    one.add_argument("--batch", type=_whole(1), default=128, help="images at a time; default 128")
    one.add_argument("--device", help="cpu, cuda, cuda:1, mps; default: a GPU where there is one")
    one.add_argument("--worker", type=_whole(0), default=0, help="number of this process among --workers, from 0")
    one.add_argument("--workers", type=_whole(1), default=1, help="processes that share the work, in one folder")
    one.add_argument("--foreign", action="store_true", help="the labels are of other classes than the network's")
    _asked(_command(store, "explain", store_explain))

    data = _group(commands, "data", "image sets: list, show, verify")
    _command(data, "list", data_list)
    _split(_command(data, "show", data_show))
    _command(data, "verify", data_verify).add_argument("dataset")
    return parser


class _Parser(argparse.ArgumentParser):
    """A parser whose complaint is an error like any other: one line."""

    def error(self, message: str) -> NoReturn:
        raise ValueError(f"{message}; see {self.prog} --help")


def _whole(least: int):
    """A reader of whole numbers from a bound on, for argparse."""

    def read(text: str) -> int:
        if not re.fullmatch(r"[+-]?\d{1,18}", text, re.ASCII) or int(text) < least:
            raise argparse.ArgumentTypeError(f"it must be a whole number of at least {least}; got {text!r}")
        return int(text)

    return read


def _group(commands, name: str, what: str):
    return commands.add_parser(name, help=what, description=what).add_subparsers(required=True, metavar="COMMAND")


def _command(commands, name: str, do) -> argparse.ArgumentParser:
    parser = commands.add_parser(name, help=do.__doc__.splitlines()[0], description=do.__doc__)
    parser.set_defaults(do=do)
    return parser


def _root(parser: argparse.ArgumentParser) -> argparse.ArgumentParser:
    parser.add_argument("--root", help="folder of the store; default: $UQLIB_STORE or the cache, and data/store")
    return parser


def _split(parser: argparse.ArgumentParser) -> argparse.ArgumentParser:
    parser.add_argument("dataset")
    parser.add_argument("split", nargs="?", default="test")
    parser.add_argument("--corruption", help="one of the nineteen, such as fog")
    parser.add_argument("--severity", type=int, help="of the corruption, 1 to 5; default 3")
    return parser


def _asked(parser: argparse.ArgumentParser) -> argparse.ArgumentParser:
    parser.add_argument("network", help="any name that timm knows, or one of uqlib.networks")
    parser.add_argument("--weights", default="pretrained", help="pretrained, or a safetensors or torch file")
    return _root(_split(parser))


if __name__ == "__main__":
    sys.exit(main())
