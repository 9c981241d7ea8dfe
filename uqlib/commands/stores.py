"""The commands of the store and of image sets: list, verify, fill, explain, show."""

import argparse
import sys
from typing import Any

from uqlib.commands.parsing import (
    add_asked,
    add_command,
    add_group,
    add_root,
    add_split,
    choose_device,
    root_of,
    whole_number,
)


def add_store_commands(commands: Any) -> None:
    """Add the parsers of these commands."""
    store = add_group(commands, "store", "what networks said: list, verify, fill, explain")
    add_root(add_command(store, "list", do_store_list))
    add_root(add_command(store, "verify", do_store_verify))
    one = add_asked(add_command(store, "fill", do_store_fill))
    one.add_argument("--batch", type=whole_number(1), default=128, help="images at a time; default 128")
    one.add_argument("--device", help="cpu, cuda, cuda:1, mps; default: a GPU where there is one")
    one.add_argument("--worker", type=whole_number(0), default=0, help="number of this process among --workers, from 0")
    one.add_argument("--workers", type=whole_number(1), default=1, help="processes that share the work, in one folder")
    one.add_argument("--foreign", action="store_true", help="the labels are of other classes than the network's")
    add_asked(add_command(store, "explain", do_store_explain))

    data = add_group(commands, "data", "image sets: list, show, verify")
    add_command(data, "list", do_data_list)
    add_split(add_command(data, "show", do_data_show))
    add_command(data, "verify", do_data_verify).add_argument("dataset")


def do_store_list(args: argparse.Namespace) -> None:
    """Print what the store holds."""
    from uqlib import store

    entries = store.list_entries(root=root_of(args))
    for entry in entries:
        size = entry.path.stat().st_size / 1e6
        print(f"{entry.key.network:20} {entry.key.dataset}.{entry.key.split:28} {entry.rows:8} rows {size:8.1f} MB")
    if not entries:
        print(f"nothing is stored in {args.root or 'the store'}; `uqlib store fill` fills it")


def do_store_verify(args: argparse.Namespace) -> int:
    """Check every byte of every file of the store."""
    from uqlib import store

    faults = store.verify_store(root=root_of(args))
    for fault in faults.values():
        print(fault, file=sys.stderr)
    print(f"{len(store.roots(root=args.root))} folders searched, {len(faults)} damaged files")
    return 1 if faults else 0


def do_store_fill(args: argparse.Namespace) -> None:
    """Run a network over a data set and store what it says; resumes, and shares the work with other processes."""
    from uqlib import networks
    from uqlib.store.fill import fill_entry, key_of

    network = networks.create(args.network, weights=args.weights)
    images = _images(args)
    path = fill_entry(
        key_of(args.network, network, images), network, images.images, images.labels, index=images.index,
        root=args.root, batch=args.batch, device=choose_device(args.device), worker=args.worker, workers=args.workers,
        foreign=args.foreign,
    )  # fmt: skip
    print(path or "this worker's part is done; others are still at theirs")


def do_store_explain(args: argparse.Namespace) -> None:
    """Say whether the store holds what a network would say on a data set, and if not, what differs."""
    from uqlib import networks, store
    from uqlib.store.fill import key_of

    key = key_of(args.network, networks.create(args.network, weights=args.weights), _images(args))
    print(store.explain_miss(key, root=root_of(args)))


def do_data_list(args: argparse.Namespace) -> None:
    """Print the data sets that are known by name, and their splits."""
    from uqlib.images.sources import SPLITS

    for name, splits in SPLITS.items():
        print(f"{name:15} {', '.join(splits)}")
    print("folder:PATH     class folders of image files")


def do_data_show(args: argparse.Namespace) -> None:
    """Load a split, downloading it on first use, and print what it is."""
    images = _images(args)
    shape = getattr(images.images, "shape", f"{len(images)} files")
    print(f"{images.name}.{images.split}: {shape}, {len(images.classes)} classes, digest {images.digest[:12]}")


def do_data_verify(args: argparse.Namespace) -> int:
    """Compare the files of a prepared data set with their checksums."""
    from uqlib.images.sources import verify_images

    faults = verify_images(args.dataset)
    for path, fault in faults.items():
        print(f"{path} {fault}", file=sys.stderr)
    print(f"{args.dataset}: {len(faults)} damaged files")
    return 1 if faults else 0


def _images(args: argparse.Namespace) -> Any:
    from uqlib.images.sources import load_images

    images = load_images(args.dataset, args.split)
    if args.corruption is None:
        if args.severity is not None:
            raise ValueError(f"--severity is {args.severity}, of no corruption; name one by --corruption")
        return images
    from uqlib.images.corruptions import corrupt

    severity = 3 if args.severity is None else args.severity
    changed = corrupt(images.images, args.corruption, severity, rows=images.index)
    return images.with_images(changed, name=f"{images.name}_c", split=f"{args.corruption}-{severity}")
