"""The command `uqlib`: run a notebook, look after the store and the data, print the ledger. Thin over the library."""

import argparse
import contextlib
import os
import signal
import sys
import traceback
from collections.abc import Iterator, Sequence
from pathlib import Path
from types import FrameType

from uqlib import __version__
from uqlib.base.extras import named
from uqlib.commands.books import add_book_commands
from uqlib.commands.parsing import Parser
from uqlib.commands.stores import add_store_commands
from uqlib.commands.sweeps import add_sweep_commands

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
    kept = "what was begun is not kept"
    with _stoppable() as came:
        try:
            args = _parser().parse_args(argv)
            kept = getattr(args, "kept", kept)
            debug |= args.debug
            with named():
                return args.do(args) or 0
        except BaseException as error:
            if came:  # an import or a library may have made another error of it
                print(f"uqlib: stopped by {came[0].name}; {kept}", file=sys.stderr)
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


def _parser() -> argparse.ArgumentParser:
    parser = Parser(prog="uqlib", description=__doc__)
    parser.add_argument("--version", action="version", version=f"uqlib {__version__}")
    parser.add_argument(
        "--debug", action="store_true", help="show where an error comes from; the same as UQLIB_DEBUG=1"
    )
    commands = parser.add_subparsers(required=True, metavar="COMMAND")
    add_book_commands(commands)
    add_sweep_commands(commands)
    add_store_commands(commands)
    return parser


if __name__ == "__main__":
    sys.exit(main())
