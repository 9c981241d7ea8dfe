"""The commands of the book: run, stale, parameters, pages, book, ledger, new, tree."""

import argparse
import contextlib
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

from uqlib.base.scales import SCALES
from uqlib.commands.parsing import add_command, find_checkout


def add_book_commands(commands: Any) -> None:
    """Add the parsers of these commands."""
    one = add_command(commands, "run", do_run)
    one.add_argument("notebook")
    one.add_argument("-p", dest="parameter", nargs=2, action="append", default=[], metavar=("NAME", "VALUE"))
    one.add_argument("--scale", help=f"one of {', '.join(SCALES)}; the same as -p scale")
    one.add_argument("-o", dest="output", help="executed copy; default build/runs/PAPER/NOTEBOOK.SCALE.ipynb, with "
                     "digits for other parameters")  # fmt: skip

    one.add_argument("--basis", action="store_true", help="note beside the copy what the run rested on; see stale")

    one = add_command(commands, "stale", do_stale)
    one.add_argument("--scale", default="cpu", choices=SCALES, help="of the book; default cpu")

    one = add_command(commands, "parameters", do_parameters)
    one.add_argument("notebook")

    one = add_command(commands, "ledger", do_ledger)
    one.add_argument("--records", nargs="*", help="records, or folders of them; default data/records book/results")

    one = add_command(commands, "pages", do_pages)
    one.add_argument("--results", help="folder of the executed notebooks and their records; default book/results")
    one.add_argument("--basis", action="store_true", help="note beside the pages what they rest on; see stale")

    add_command(commands, "tree", do_tree)

    one = add_command(commands, "new", do_new)
    one.add_argument("name", help="letters and a year, such as guo2017")
    one.add_argument("--title", required=True)
    one.add_argument("--author", required=True, help="as it is cited, such as 'Guo and Pleiss'")
    one.add_argument("--eprint", default="", help="number at arXiv, such as 1706.04599")

    one = add_command(commands, "book", do_book)
    one.add_argument("--html", default="_build/html", help="folder of the book that stands; default _build/html")
    one.add_argument("--basis", metavar="RESULTS", help="note beside it what it rests on, with the copies in RESULTS")


def do_run(args: argparse.Namespace) -> None:
    """Execute a notebook with checked parameters; papermill does the work."""
    from uqlib.book import notebooks

    given: dict[str, Any] = {}
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
    execute: Callable[..., Path] = notebooks.execute
    if args.basis:
        from uqlib.book import staleness

        execute = staleness.execute_noted
    execute(args.notebook, output, given, progress=sys.stderr.isatty())
    print(f"executed: {output}")
    if given.get("record") and Path(given["record"]).is_file():
        print(f"record:   {given['record']}")


def do_stale(args: argparse.Namespace) -> None:
    """Print what of the book is stale, and why; nothing is run."""
    from uqlib.book import staleness

    with contextlib.chdir(find_checkout()):
        found = staleness.find_stale("book/results", "_build", {"scale": args.scale, "seed": 0})
    for name, why in found.items():
        print(f"{name}: {staleness.shortened(why)}")
    if not found:
        print("Nothing is stale.")


def do_parameters(args: argparse.Namespace) -> None:
    """Print the parameters of a notebook."""
    from uqlib.book import notebooks

    for p in notebooks.parameters(args.notebook).values():
        print(f"{p.name} = {p.default!r}  ({p.kind})  {p.meaning}")


def do_pages(args: argparse.Namespace) -> None:
    """Write the computed pages of the book: ledger, summary, benchmarks, parameters, runs, API."""
    from uqlib.book.pages import write_pages

    folder = Path(args.results).absolute() if args.results else None
    with contextlib.chdir(find_checkout()), contextlib.ExitStack() as noting:
        folder = folder or Path("book/results")
        if args.basis:
            from uqlib.book import staleness

            noting.enter_context(staleness.noting_pages(folder))
        write_pages(folder)


def do_new(args: argparse.Namespace) -> None:
    """Write the files of a new paper: ledger, notebook, page, names, test, reference, chapter."""
    from uqlib.book import skeleton

    with contextlib.chdir(find_checkout()):
        for path in skeleton.new_paper(args.name, title=args.title, author=args.author, eprint=args.eprint):
            print(f"wrote {path}")
        do_tree(args)
    print("next: make book; then replace the example, piece by piece")


def do_tree(args: argparse.Namespace) -> None:
    """Write the tree of the library into the README, from the first sentences of its files."""
    from uqlib.book import house
    from uqlib.files.whole import write_text

    with contextlib.chdir(find_checkout()):
        readme = Path("README.md")
        write_text(readme, house.with_tree(readme.read_text(encoding="utf-8"), Path("uqlib")))


def do_book(args: argparse.Namespace) -> None:
    """Build the HTML of the book beside the one that stands, and put it in its place once it is whole."""
    from uqlib.book import build

    with contextlib.chdir(find_checkout()):
        if args.basis:
            from uqlib.book import staleness

            with staleness.noting_book(args.basis, args.html):
                built = build.html(args.html)
        else:
            built = build.html(args.html)
        print(f"built: {built}")


def do_ledger(args: argparse.Namespace) -> None:
    """Print every claim with its verdict and evidence."""
    from uqlib.book.pages import known_notebooks
    from uqlib.report import ledger, records

    places = [Path(place).absolute() for place in args.records or []]
    for place in places:
        if not place.exists():
            raise FileNotFoundError(f"there is no file or folder {place}; --records takes records and folders of them")
    with contextlib.chdir(find_checkout()):
        usual = ["data/records", "book/results"]
        results = (
            records.read_results(*places) if places else records.read_results(*usual, notebooks=known_notebooks(*usual))
        )
        for each in ledger.read_ledgers("data/ledger"):
            for row in each.rows:
                for v in ledger.verdicts(row, results):
                    print(f"{v.claim.id:24} {v.scale or '-':6} {v.verdict:18} {v.claim.text}")
