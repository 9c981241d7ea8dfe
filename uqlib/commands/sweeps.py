"""The commands `uqlib train`, `pretrain`, `short`, `network`, `difficulty`, `heads`, `uncertainty`, `embed`. Thin over the package; torch waits until one runs."""

import argparse
import contextlib
import math
import os
import time
from typing import Any

from uqlib.base.scales import SCALES
from uqlib.commands.parsing import add_command, choose_device, find_checkout, whole_number

MADE_WITH = "default: in the checkout at scale cpu, else $UQLIB_STORE or the cache"


def add_sweep_commands(commands: Any) -> None:
    """Add the parsers of these commands."""
    one = add_command(commands, "train", do_train)
    one.add_argument("study", nargs="?", help="of data/trainings; by default all that is asked for, networks too")
    one.add_argument("variant", nargs="?", help="by default all of the study")
    one.add_argument("seed", nargs="?", type=whole_number(0), help="by default all of the variant")
    one.add_argument("--minutes", type=whole_number(0), help="stop in time; by default when all is made")
    one.add_argument("--scale", default="cpu", choices=SCALES, help="where no study is named; default cpu")
    one.add_argument(
        "--dry-run", action="store_true", help="only say what is missing, in its order, and how long it takes"
    )
    _add_common(one)
    one = add_command(commands, "pretrain", do_pretrain)
    one.add_argument(
        "task", nargs="?", help="a network to pretrain, or a task of runs that start from one; by default all"
    )
    one.add_argument("run", nargs="?", help="START/METHOD/LEVEL/SEED; by default all of the task")
    one.add_argument("--minutes", type=whole_number(0), help="stop in time; by default when all is made")
    one.add_argument(
        "--scale",
        default="cpu",
        choices=SCALES,
        help="where no task is named; gpu: a wide ResNet on the whole sets; default cpu",
    )
    one.add_argument("--device", help="cpu, cuda, cuda:1, mps; default: a GPU where there is one")
    one = add_command(commands, "short", do_short)
    one.add_argument("paper", nargs="?", help="such as zheng2023, or components; by default all")
    one.add_argument("run", nargs="?", help="one run; by default all of the paper")
    one.add_argument("--minutes", type=whole_number(0), help="stop in time; by default when all is made")
    one.add_argument("--device", help="cpu, cuda, cuda:1, mps; default: a GPU where there is one")
    one = add_command(commands, "network", do_network)
    one.add_argument("benchmark", help="of data/benchmarks")
    one.add_argument("network", nargs="?", help="by default all of the benchmark")
    _add_common(one)
    one = add_command(commands, "difficulty", do_difficulty)
    one.add_argument("part", nargs="?", help="images, classes, corrupted, augmented or noisy; by default all")
    one.add_argument("scorer", nargs="?", help="by default all of the part")
    add_command(commands, "heads", do_heads)
    one = add_command(commands, "uncertainty", do_uncertainty)
    one.add_argument(
        "backbone", nargs="?", help="a network of ImageNet, joint or across; by default all that are missing"
    )
    one.add_argument(
        "--scale", default="cpu", choices=("cpu", "gpu"), help="gpu: stronger networks of timm too; default cpu"
    )
    one.add_argument("--device", help="cpu, cuda, cuda:1, mps; default: a GPU where there is one")
    one = add_command(commands, "embed", do_embed)
    one.add_argument("sets", nargs="*", help="clean, learnt, corrupted, others, noise, features; by default all")
    one.add_argument("--networks", nargs="+", help="by default the four CIFAR ResNets")
    one.add_argument("--root", default="data/store", help="folder of the store; default data/store")


def _add_common(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--device", help="cpu, cuda, cuda:1, mps; default: a GPU where there is one")
    parser.add_argument("--root", help=f"folder of the store of networks; {MADE_WITH}")
    parser.set_defaults(kept="it goes on from the last epoch that was finished")


def do_train(args: argparse.Namespace) -> int:
    """Make the trainings and networks that data/*.toml ask for and that are not there, the most valuable first."""
    with contextlib.chdir(find_checkout()):
        from uqlib.experiments import studies, worklist
        from uqlib.experiments.short import asked_short
        from uqlib.experiments.transfer import asked_runs

        if args.study is None:
            jobs = worklist.list_missing(args.scale, root=args.root) + asked_runs.missing_jobs(args.scale)
            jobs = worklist.sort_jobs(jobs + asked_short.missing_short_jobs(args.scale))
        else:
            jobs = worklist.training_jobs(studies.load_study(args.study), args.variant, args.seed)
            jobs = worklist.sort_jobs([job for job in jobs if job.is_missing()])
        if args.dry_run:
            return _print_plan(jobs)
        return _work(jobs, args, args.minutes, wait=args.study is not None)


def do_pretrain(args: argparse.Namespace) -> int:
    """Pretrain networks on Tiny-ImageNet, and train from them and from scratch, what data/ lacks of it."""
    with contextlib.chdir(find_checkout()):
        from uqlib.experiments import worklist
        from uqlib.experiments.transfer import asked_runs

        jobs = worklist.sort_jobs(asked_runs.choose_jobs(args.task, args.run, scale=args.scale))
        return _work([job for job in jobs if job.is_missing()], args, args.minutes, wait=args.task is not None)


def do_short(args: argparse.Namespace) -> int:
    """Make the trainings of the short studies that data/trained/short lacks: heads on frozen features, minutes each."""
    with contextlib.chdir(find_checkout()):
        from uqlib.experiments import worklist
        from uqlib.experiments.short import asked_short

        jobs = worklist.sort_jobs(asked_short.short_jobs(args.paper, args.run))
        return _work([job for job in jobs if job.is_missing()], args, args.minutes, wait=args.paper is not None)


def do_network(args: argparse.Namespace) -> int:
    """Make the networks of a benchmark that the store lacks, and store what they say."""
    with contextlib.chdir(find_checkout()):
        from uqlib.experiments import benchmarks, worklist

        jobs = worklist.network_jobs(benchmarks.load_benchmark(args.benchmark), args.network, root=args.root)
        return _work([job for job in jobs if job.is_missing()], args, None, wait=True)


def do_difficulty(args: argparse.Namespace) -> None:
    """Score how hard the images of CIFAR-10 are, by the scorers that data/difficulty lacks."""
    with contextlib.chdir(find_checkout()):
        from uqlib.base.options import check_choice
        from uqlib.experiments import difficulty_scores as scores

        for part in [args.part] if args.part else scores.PARTS:
            known = scores.part_scorers(part)
            for scorer in known if args.scorer is None else [check_choice(args.scorer, known, f"scorer of {part}")]:
                if scores.lacks_scores(part, scorer):
                    scores.make_scores(part, scorer)
                    print(f"scored: {part} by {scorer}", flush=True)


def do_heads(args: argparse.Namespace) -> None:
    """Train small heads on what a network of ImageNet sees in CIFAR-10, thirty seeds of each loss at once."""
    with contextlib.chdir(find_checkout()):
        from uqlib.experiments import frozen_heads

        print(f"trained: {frozen_heads.make_heads()}", flush=True)


def do_uncertainty(args: argparse.Namespace) -> None:
    """Train uncertainty heads on cached features of a backbone, try them on unseen sets, keep them and what they said.

    joint: train one together with a classifier, with a stop-gradient and without; across: ask each about the others' misses.
    """
    with contextlib.chdir(find_checkout()):
        from uqlib.experiments.uncertainties import joint, kept_trials, trials, upstream_features

        tried = kept_trials.tried_backbones()
        known = upstream_features.BACKBONES | (upstream_features.STRONGER if args.scale == "gpu" else {})
        missing = [name for name in known if name not in tried]
        for name in [*missing, "joint", "across"] if args.backbone is None else [args.backbone]:
            if name == "joint":
                made = joint.make_joint()
            elif name == "across":
                made = trials.make_across(kept_trials.tried_backbones())
            else:
                upstream_features.load_backbone(name).to(choose_device(args.device))
                made = trials.make_trials(name)
            print(f"made: {made}", flush=True)


def do_embed(args: argparse.Namespace) -> None:
    """Store what the CIFAR ResNets say on CIFAR-10, on corrupted images of it, and on images of other classes."""
    with contextlib.chdir(find_checkout()):
        from uqlib.experiments import embedded

        for kind in args.sets or [*embedded.EMBEDDED_SETS, embedded.FEATURES]:
            embedded.embed_set(kind, args.networks or embedded.NETWORKS, root=args.root)
            print(f"stored: {kind}", flush=True)


def _work(jobs: list, args: argparse.Namespace, minutes: int | None, *, wait: bool) -> int:
    """Make the jobs, say what was made and what is left; 1 if something could not be made."""
    import torch

    from uqlib.experiments.timed_work import Shift

    if not jobs:
        print("nothing is missing")
        return 0
    device = choose_device(args.device)
    if device == "cpu" and minutes is not None:  # in the background, beside what its user does
        torch.set_num_threads(1)
        os.nice(10)
    deadline = math.inf if minutes is None else time.monotonic() + 60 * minutes
    shift = Shift(jobs, deadline, device=device, tell=lambda line: print(line, flush=True))
    try:
        shift.work(wait=wait)
    finally:  # a Ctrl-C too
        print(shift.describe(), flush=True)
    return 1 if shift.refused else 0


def _print_plan(jobs: list) -> int:
    from uqlib.experiments.timed_work import tell_total

    for job in jobs:
        needed = job.estimate_seconds()
        print(f"{'?' if needed is None else f'{needed / 60:.1f}':>7} min  {job.command}")
    print(f"missing: {len(jobs)}, {tell_total(jobs)}" if jobs else "nothing is missing")
    return 0
