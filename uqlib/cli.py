"""The command `uqlib`: run a notebook, look after the store and the data, print the ledger. Thin over the library."""

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from uqlib import __version__
from uqlib.scales import SCALES

EXTRAS = {"timm": "images", "torchvision": "images", "PIL": "images", "sklearn": "images", "scipy": "images",
          "matplotlib": "plots", "laplace": "laplace"}  # fmt: skip


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command; a mistake of the user is one line on standard error and exit code 2, a failed run exit code 1."""
    args = _parser().parse_args(argv)
    try:
        return args.do(args) or 0
    except BrokenPipeError:  # the reader of a long list has seen enough
        sys.stderr.close()
        return 0
    except ModuleNotFoundError as error:
        extra = EXTRAS.get((error.name or "").split(".")[0], "book")
        print(f"uqlib: this needs {error.name}, which is not installed: pip install 'uqlib[{extra}]'", file=sys.stderr)
        return 1
    except (ValueError, TypeError, KeyError, FileNotFoundError) as error:
        print(f"uqlib: {error.args[0] if isinstance(error, KeyError) else error}", file=sys.stderr)
        return 2
    except (RuntimeError, OSError) as error:
        print(f"uqlib: {error}", file=sys.stderr)
        return 1


def run(args: argparse.Namespace) -> None:
    """Execute a notebook with checked parameters; papermill does the work."""
    from uqlib import notebooks

    known = notebooks.parameters(args.notebook)
    given = {name: notebooks.parse_parameter(args.notebook, name, text) for name, text in args.parameter}
    if args.scale:
        given["scale"] = args.scale
    name = Path(args.notebook).with_suffix("")
    scale = given.get("scale", known["scale"].default if "scale" in known else "all")
    output = Path(args.output or Path("build/runs") / name.parent.name / f"{name.name}.{scale}.ipynb")
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
    """Write the computed pages of the book: ledger, summary, benchmarks, parameters, runs."""
    from uqlib import benchmarks, files, ledger, notebooks, pages, records

    folder = Path(args.results)
    ledgers = ledger.load_all(_in_a_checkout("data/ledger"))
    results = records.read("data/records", folder)
    texts = {
        "ledger": "\n".join(pages.ledger_page(each, results) for each in ledgers),
        "summary": pages.ledger_summary(ledgers, results),
        "scales": pages.scales_table(),
        "benchmarks": pages.benchmarks_page(map(benchmarks.load, benchmarks.names())),
        "parameters": pages.parameters_page(notebooks.paths()),
        "runs": pages.runs_page(records.read_runs("data/records", folder)),
    }
    for name, text in texts.items():
        files.write_text(folder / f"{name}.md", text)


def show_ledger(args: argparse.Namespace) -> None:
    """Print every claim with its verdict and evidence."""
    from uqlib import ledger, records

    results = records.read(*(args.records or ["data/records", "book/results"]))
    for each in ledger.load_all(_in_a_checkout("data/ledger")):
        for row in each.rows:
            for v in ledger.verdicts(row, results):
                print(f"{v.claim.id:24} {v.scale or '-':6} {v.verdict:18} {v.claim.text}")


def store_list(args: argparse.Namespace) -> None:
    """Print what the store holds."""
    from uqlib import store

    for entry in store.entries(root=args.root):
        size = entry.path.stat().st_size / 1e6
        print(f"{entry.key.network:20} {entry.key.dataset}.{entry.key.split:28} {entry.rows:8} rows {size:8.1f} MB")


def store_verify(args: argparse.Namespace) -> int:
    """Check every byte of every file of the store."""
    from uqlib import store

    if args.root and not Path(args.root).is_dir():
        raise FileNotFoundError(f"there is no folder {args.root}")
    faults = store.verify(root=args.root)
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
        root=args.root, batch=args.batch, device=args.device or _device(), worker=args.worker, workers=args.workers,
    )  # fmt: skip
    print(path or "this worker's part is done; others are still at theirs")


def store_explain(args: argparse.Namespace) -> None:
    """Say whether the store holds what a network would say on a data set, and if not, what differs."""
    from uqlib import models, store

    key = store.key_of(args.network, models.create(args.network, weights=args.weights), _images(args))
    print(store.explain(key, root=args.root))


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
        return images
    from uqlib.corruptions import corrupt

    changed = corrupt(images.images[:], args.corruption, args.severity, rows=images.index)
    return images.with_images(changed, name=f"{images.name}_c", split=f"{args.corruption}-{args.severity}")


def _in_a_checkout(folder: str) -> Path:
    if not Path(folder).is_dir():
        raise FileNotFoundError(f"there is no {folder} in {Path.cwd()}; call this in a checkout of the book")
    return Path(folder)


def _device() -> str:
    import torch

    return "cuda" if torch.cuda.is_available() else "mps" if torch.backends.mps.is_available() else "cpu"


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

    store = _group(commands, "store", "what networks said: list, verify, fill, explain")
    _root(_command(store, "list", store_list))
    _root(_command(store, "verify", store_verify))
    one = _asked(_command(store, "fill", store_fill))
    one.add_argument("--batch", type=int, default=128)
    one.add_argument("--device", help="cpu, cuda, cuda:1, mps; default: a GPU where there is one")
    one.add_argument("--worker", type=int, default=0, help="number of this process among --workers, from 0")
    one.add_argument("--workers", type=int, default=1, help="processes that share the work, in one folder")
    _asked(_command(store, "explain", store_explain))

    data = _group(commands, "data", "image sets: list, show, verify")
    _command(data, "list", data_list)
    _split(_command(data, "show", data_show))
    _command(data, "verify", data_verify).add_argument("dataset")
    return parser


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
    parser.add_argument("--severity", type=int, default=3)
    return parser


def _asked(parser: argparse.ArgumentParser) -> argparse.ArgumentParser:
    parser.add_argument("network", help="any name that timm knows, or one of uqlib.networks")
    parser.add_argument("--weights", default="pretrained", help="pretrained, or a safetensors or torch file")
    return _root(_split(parser))


if __name__ == "__main__":
    sys.exit(main())
