"""The command `uqlib`: run a notebook, look after the store and the data, print the ledger. Thin over the library."""

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from uqlib import __version__
from uqlib.scales import SCALES


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command; a mistake of the user is one line on standard error and exit code 2, a failed run exit code 1."""
    args = _parser().parse_args(argv)
    try:
        return args.do(args) or 0
    except (ValueError, TypeError, KeyError, FileNotFoundError) as error:
        print(f"uqlib: {error.args[0] if isinstance(error, KeyError) else error}", file=sys.stderr)
        return 2
    except (RuntimeError, ImportError, OSError) as error:
        print(f"uqlib: {error}", file=sys.stderr)
        return 1


def run(args: argparse.Namespace) -> None:
    """Execute a notebook with checked parameters; papermill does the work."""
    from uqlib import notebooks

    known = notebooks.parameters(args.notebook)
    given = {name: notebooks.parse_parameter(args.notebook, name, text) for name, text in args.parameter}
    if args.scale:
        given["scale"] = args.scale
    given = notebooks.check_parameters(args.notebook, given)
    name = Path(args.notebook).with_suffix("")
    output = Path(
        args.output or Path("build/runs") / name.parent.name / f"{name.name}.{given.get('scale', 'cpu')}.ipynb"
    )
    if "record" in known:
        given.setdefault("record", str(output.with_suffix(".json")))
    notebooks.execute(args.notebook, output, given, progress=sys.stderr.isatty())
    print(f"executed: {output}")


def parameters(args: argparse.Namespace) -> None:
    """Print the parameters of a notebook."""
    from uqlib import notebooks

    for p in notebooks.parameters(args.notebook).values():
        print(f"{p.name} = {p.default!r}  ({p.kind})  {p.meaning}")


def pages(args: argparse.Namespace) -> None:
    """Write the computed pages of the book: ledger, summary, parameters, runs."""
    from uqlib import ledger, pages, records

    folder = Path(args.results)
    ledgers = ledger.load_all("data/ledger")
    results = records.read("data/records", folder)
    sources = sorted(path for path in Path("notebooks").glob("*/*.ipynb"))
    texts = {
        "ledger": "\n".join(pages.ledger_page(each, results) for each in ledgers),
        "summary": pages.ledger_summary(ledgers, results),
        "parameters": pages.parameters_page(sources),
        "runs": pages.runs_page(records.read_runs("data/records", folder)),
    }
    for name, text in texts.items():
        records.write_text(folder / f"{name}.md", text)


def show_ledger(args: argparse.Namespace) -> None:
    """Print every claim with its verdict and evidence."""
    from uqlib import ledger, records

    results = records.read(*(args.records or ["data/records", "book/results"]))
    for each in ledger.load_all("data/ledger"):
        for row in each.rows:
            for v in ledger.verdicts(row, results):
                print(f"{v.claim.id:24} {v.scale or '-':6} {v.verdict:18} {v.claim.text}")


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="uqlib", description=__doc__)
    parser.add_argument("--version", action="version", version=f"uqlib {__version__}")
    commands = parser.add_subparsers(required=True, metavar="COMMAND")

    one = _command(commands, "run", run)
    one.add_argument("notebook")
    one.add_argument("-p", dest="parameter", nargs=2, action="append", default=[], metavar=("NAME", "VALUE"))
    one.add_argument("--scale", help=f"one of {', '.join(SCALES)}; the same as -p scale")
    one.add_argument("-o", dest="output", help="executed copy; default build/runs/PAPER/NOTEBOOK.SCALE.ipynb")

    one = _command(commands, "parameters", parameters)
    one.add_argument("notebook")

    one = _command(commands, "ledger", show_ledger)
    one.add_argument("--records", nargs="*", help="folders of records; default data/records book/results")

    one = _command(commands, "pages", pages)
    one.add_argument("--results", default="book/results", help="folder of the executed notebooks and their records")
    return parser


def _command(commands, name: str, do) -> argparse.ArgumentParser:
    parser = commands.add_parser(name, help=do.__doc__.splitlines()[0], description=do.__doc__)
    parser.set_defaults(do=do)
    return parser


if __name__ == "__main__":
    sys.exit(main())
