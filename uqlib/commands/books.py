"""The commands of the book: run, check, stale, parameters, pages, book, ledger, new, tree, screenshots."""

import argparse
import contextlib
import functools
import os
import re
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

from uqlib.base.scales import SCALES
from uqlib.commands.parsing import add_command, find_checkout, whole_number


def add_book_commands(commands: Any) -> None:
    """Add the parsers of these commands."""
    one = add_command(commands, "run", forked(do_run))
    one.add_argument("notebook")
    one.add_argument("-p", dest="parameter", nargs=2, action="append", default=[], metavar=("NAME", "VALUE"))
    one.add_argument("--scale", help=f"one of {', '.join(SCALES)}; the same as -p scale")
    one.add_argument("-o", dest="output", help="executed copy; default build/runs/PAPER/NOTEBOOK.SCALE.ipynb, with "
                     "digits for other parameters")  # fmt: skip

    one.add_argument("--basis", action="store_true", help="note beside the copy what the run rested on; see stale")

    one = add_command(commands, "check", do_check)
    one.add_argument("notebook")
    one.add_argument("--scale", choices=SCALES, help="of the published run; default: the one that the book shows")

    one = add_command(commands, "stale", do_stale)
    one.add_argument("--scale", default="cpu", choices=SCALES, help="of the book; default cpu")

    one = add_command(commands, "parameters", do_parameters)
    one.add_argument("notebook")

    one = add_command(commands, "ledger", do_ledger)
    one.add_argument("--records", nargs="*", help="records, or folders of them; default data/records book/results")

    one.add_argument(
        "--format", choices=("json", "csv", "codecheck"), help="for other programs; see uqlib.evidence.export"
    )

    one = add_command(commands, "pages", forked(do_pages))
    one.add_argument("--results", help="folder of the executed notebooks and their records; default book/results")
    one.add_argument("--basis", action="store_true", help="note beside the pages what they rest on; see stale")

    add_command(commands, "tree", do_tree)

    one = add_command(commands, "screenshots", do_screenshots)
    one.add_argument("--html", default="_build/html", help="folder of the book; default _build/html")
    one.add_argument("-o", dest="output", default="build/screenshots.png", help="default build/screenshots.png")

    one = add_command(commands, "new", do_new)
    one.add_argument("name", help="letters and a year, such as guo2017")
    one.add_argument("--title", required=True)
    one.add_argument("--author", required=True, help="as it is cited, such as 'Guo and Pleiss'")
    one.add_argument("--eprint", default="", help="number at arXiv, such as 1706.04599")

    one = add_command(commands, "book", forked(do_book))
    one.add_argument("--html", default="_build/html", help="folder of the book that stands; default _build/html")
    one.add_argument(
        "--jobs", type=whole_number(1), default=1, help="processes that make pages side by side; default 1"
    )
    one.add_argument("--basis", metavar="RESULTS", help="note beside it what it rests on, with the copies in RESULTS")


def forked(do: Callable[[argparse.Namespace], int | None]) -> Callable[[argparse.Namespace], int | None]:
    """A command that is done by a fork where one is lent."""

    @functools.wraps(do)
    def done(args: argparse.Namespace) -> int | None:
        from uqlib.book import kernel

        code = kernel.borrow_fork(sys.argv[1:])
        return do(args) if code is None else code

    return done


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
    own = args.basis and notebooks.deviations(args.notebook, given) in ({}, {"seed": 0})
    for path in map(os.path.abspath, filter(None, (output, given.get("record")))):
        if (place := re.search("/(data/records|book/results)/", path)) and not (own and place[1] == "book/results"):
            raise ValueError(
                f"{path} is the place of a published number, which `make book` alone replaces, by a run of the defaults and "
                "seed 0; leave -o and -p record away, and the run lies in build/runs"
            )
    execute: Callable[..., Path] = notebooks.execute
    if args.basis:
        from uqlib.book import staleness

        execute = staleness.execute_noted
    execute(args.notebook, output, given, progress=sys.stderr.isatty())
    print(f"executed: {output}")
    if given.get("record") and Path(given["record"]).is_file():
        print(f"record:   {given['record']}")
        if not args.basis:
            _lay_beside(Path(args.notebook), output, Path(given["record"]))


def do_check(args: argparse.Namespace) -> int:
    """Repeat a published run, and say of each claim and number whether it stands; the exit status is 1 if one does not."""
    from uqlib.book import notebooks

    known, path = notebooks.parameters(args.notebook), Path(args.notebook)
    name = f"{path.absolute().parent.name}/{path.stem}"
    published = _published(path, name, args.scale)
    if published is None or args.scale not in (None, published["scale"]):
        raise FileNotFoundError(
            f"there is no published run of {name} at scale {args.scale or 'cpu'} to check; this makes one: "
            f"snakemake --cores 1 --config scale={args.scale or 'cpu'} -- book/results/{name}.json"
        )
    output = Path(f"build/check/{name}.{published['scale']}.ipynb")
    given = {name: value for name, value in published["parameters"].items() if name in known}
    notebooks.execute(path, output, given | {"record": f"{output.with_suffix('.json')}"}, progress=sys.stderr.isatty())
    return int(not _lay_beside(path, output, output.with_suffix(".json"), only_fallen=True))


def _published(notebook: Path, name: str, scale: str | None) -> dict[str, Any] | None:
    """The published record of a notebook, that of this scale if there is one."""
    from uqlib.book import notebooks, pages

    with contextlib.chdir(notebooks.checkout_of(notebook) or "."):
        runs = [run for run in pages.published_runs() if run["notebook"] == name]
    return max(reversed(runs), key=lambda run: run["scale"] == scale, default=None)


def _lay_beside(notebook: Path, output: Path, record: Path, *, only_fallen: bool = False) -> bool:
    """Print a run beside the published one, and write the page of it beside its copy; whether what is published stands."""
    from uqlib.book import notebooks, staleness
    from uqlib.evidence import ledger, records
    from uqlib.files.whole import write_text
    from uqlib.report import reruns

    ours = records.read_record(record)
    published = _published(notebook, ours["notebook"], ours["scale"])
    if published is None:
        print(f"beside it: nothing, for no run of {ours['notebook']} is published")
        return True
    path, page, own = notebook.absolute(), output.with_suffix(".compare.html"), {"scale": published["scale"], "seed": 0}
    with contextlib.chdir(notebooks.checkout_of(notebook) or "."):
        ledgers = ledger.read_ledgers("data/ledger")
        code = staleness.reasons(path, published["path"].with_suffix(".ipynb"), own, staleness.Checkout())
    noted = code != ["new"]
    found = reruns.compare_runs(
        ours, published, ledgers, (code or ["the same"]) if noted else ["not noted when it was run"]
    )
    write_text(page, reruns.as_html(found))
    print("\n" + reruns.as_text(found, str(page), only=reruns.FALLEN if only_fallen else reruns.OUTCOMES))
    return found.stands


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


def do_screenshots(args: argparse.Namespace) -> None:
    """Photograph the built book, ten times on one sheet: pages, widths and colour modes."""
    from uqlib.commands import screens

    with contextlib.chdir(find_checkout()):
        print(f"photographed: {screens.sheet(args.html, args.output)}")


def do_book(args: argparse.Namespace) -> None:
    """Build the HTML of the book beside the one that stands, and put it in its place once it is whole."""
    from uqlib.book import build

    with contextlib.chdir(find_checkout()):
        if args.basis:
            from uqlib.book import staleness

            with staleness.noting_book(args.basis, args.html):
                built = build.html(args.html, jobs=args.jobs)
        else:
            built = build.html(args.html, jobs=args.jobs)
        print(f"built: {built}")


def do_ledger(args: argparse.Namespace) -> None:
    """Print every claim with its verdict and evidence."""
    from uqlib.book.pages import published_runs
    from uqlib.evidence import export, ledger, records, verdicts

    places = [Path(place).absolute() for place in args.records or []]
    for place in places:
        if not place.exists():
            raise FileNotFoundError(f"there is no file or folder {place}; --records takes records and folders of them")
    with contextlib.chdir(find_checkout()):
        runs = records.read_runs(*places) if places else published_runs()
        results = [result for run in runs for result in run["results"]]
        ledgers = ledger.read_ledgers("data/ledger")
        if args.format:
            print(export.FORMATS[args.format](ledgers, runs), end="")
            return
        for v in (v for each in ledgers for row in each.rows for v in verdicts.judge_row(row, results)):
            print(f"{v.claim.id:24} {v.scale or '-':6} {v.verdict:22} {v.claim.text}")
