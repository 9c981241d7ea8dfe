# data -> store -> notebooks -> records -> ledger -> book. `make book` calls this; so does
#     snakemake --cores 2 --config scale=cpu            one machine
#     snakemake --profile profiles/slurm                a cluster, GPU jobs on GPU slots
# A notebook is stale when its code, a definition that it reaches, a parameter, a package or a file that it read has changed, or
# its outputs have (uqlib/book/staleness.py). Every input is ancient but the flag of what is stale, so times do not count.

import functools
import json
import os
import re
import sys
from pathlib import Path

from uqlib.book import notebooks, staleness

sys.path.append("profiles")
import forks

SCALE = config.get("scale", "cpu")
SEED = config.get("seed", 0)
ON_GPU = SCALE in ("gpu", "paper")
BIN = Path(sys.executable).parent
RESULTS = Path(config.get("results", "book/results"))
HTML = Path(config.get("html", "_build"))
LOG = Path("build/log")
SOURCES = {str(path.relative_to("notebooks").with_suffix("")): str(path) for path in notebooks.paths()}
PAGES = [RESULTS / page for page in staleness.PAGES]
FLAGS = Path("build/stale")  # one file for each stale run, because of which Snakemake starts it; nothing goes by times
GIVEN = {"scale": SCALE, "seed": SEED}
LASTED = Path("profiles/seconds.json")  # of each notebook when `snakemake --cores 1 seconds` was last called


def flag(name):
    """The flag of what is stale, as an input; none of what is fresh."""
    path = FLAGS / f"{name}.stale"
    return [str(path)] if path.is_file() else []


def made(name, files):
    """Inputs that other rules make. Snakemake runs nothing after their rules for inputs that are ancient, nor does it then look
    at the flag; so they are ancient only while nothing is to run."""
    return files if flag(name) else ancient(files)


if workflow.is_main_process:  # the processes of its jobs find the flags
    DRY = any(re.fullmatch("-[a-z]*n[a-z]*|--dry-?run", word) for word in sys.argv)
    STALE = staleness.find_stale(RESULTS, HTML, GIVEN)
    for name, why in STALE.items():
        print(f"stale: {name}: {staleness.shortened(why)}", file=sys.stderr)
        if why == [staleness.TEXT_ALONE] and not DRY:
            staleness.refresh_copy(SOURCES[name], RESULTS / f"{name}.ipynb", GIVEN | {"record": str(RESULTS / f"{name}.json")})
    staleness.write_flags(STALE, FLAGS, RESULTS, HTML)


onstart:
    # Kernels that need not import anything. A GPU is not to be shared with a fork, and a cluster has other machines.
    if workflow.local_exec and not ON_GPU and sum(job.rule.name == "run" for job in workflow.dag.needrun_jobs()) > 1:
        try:
            os.environ["UQLIB_FORKS"] = forks.start(LOG / "forks.txt")
        except OSError as error:
            print(f"uqlib: each kernel imports for itself: {error}", file=sys.stderr)


def seconds(notebook):
    """How long a notebook took here, else elsewhere; one of which nobody knows may be the longest."""
    try:
        return json.loads((RESULTS / f"{notebook}.json").read_bytes())["provenance"]["seconds"]
    except (OSError, ValueError, TypeError, KeyError):
        return json.loads(LASTED.read_text(encoding="utf-8")).get(notebook, 1e6)


wildcard_constraints:
    notebook="[a-z0-9_]+/[a-z0-9_]+",


localrules:
    all, pages, book, seconds,


rule all:
    input:
        HTML / "html/.buildinfo",
        [RESULTS / f"{name}.{kind}" for name in SOURCES for kind in ("ipynb", "json")],


rule run:
    """Execute a notebook by papermill, with every parameter checked; its record is written beside the copy."""
    input:
        notebook=ancient("notebooks/{notebook}.ipynb"),
        stale=lambda wildcards: flag(wildcards.notebook),
        made_first=lambda wildcards: needed_by(wildcards.notebook),
    output:
        notebook=RESULTS / "{notebook}.ipynb",
        record=RESULTS / "{notebook}.json",
        figures=directory(RESULTS / "{notebook}.figures"),
        basis=RESULTS / "{notebook}.basis",
    params:
        scale=SCALE,
        seed=SEED,
    priority:
        lambda wildcards: seconds(wildcards.notebook)  # the longest first, so that all lanes end together
    threads: 1
    resources:
        mem_mb=4000,
        gpu=int(ON_GPU),
    log:
        LOG / "{notebook}.txt",
    shell:
        "mkdir -p {output.figures}; "  # some notebooks draw none that lie in files
        "{BIN}/uqlib run {input.notebook} --basis -o {output.notebook} -p scale {params.scale} -p seed {params.seed}"
        " -p record {output.record} > {log} 2>&1 || {{ tail -n 3 {log}; exit 1; }}"


rule pages:
    """Ledger, parameters and runs, computed from the records."""
    input:
        records=made("pages", [RESULTS / f"{name}.json" for name in SOURCES]),
        stale=flag("pages"),
    output:
        PAGES,
    log:
        LOG / "pages.txt",
    shell:
        "{BIN}/uqlib pages --basis --results {RESULTS} > {log} 2>&1 || {{ tail -n 3 {log}; exit 1; }}"


rule book:
    """The HTML; every warning is an error."""
    input:
        made("book", [RESULTS / f"{name}.ipynb" for name in SOURCES]),
        made("book", PAGES),
        stale=flag("book"),
    output:
        # Snakemake removes an output before the rule runs and after it failed. This one is what Sphinx notes for itself: the
        # pages stay for whoever reads them, until `uqlib book` puts the new ones in their place, all at once.
        HTML / "html/.buildinfo",
    params:
        jobs=workflow.cores or 1,  # nothing else runs any more; not `threads`, with which Snakemake would set variables
    log:
        LOG / "book.txt",
    shell:
        "{BIN}/uqlib book --jobs {params.jobs} --basis {RESULTS} --html {HTML}/html > {log} 2>&1"
        " || {{ grep -aE 'WARNING|ERROR|CRITICAL|rror:' {log} || tail -n 5 {log}; exit 1; }}"


# What the notebooks read: trainings, networks and scores, each made once, and not again because a rule has changed. The
# book at scale cpu or smoke takes those that travel with the checkout; at gpu and paper what is missing is made first.
#     snakemake --cores 2 trainings                                   all trainings that data/trainings asks for
#     snakemake --profile profiles/slurm networks --config scale=gpu  all networks of data/benchmarks
# To say what is missing takes seconds, for torch is imported, so it is asked only where somebody wants to know.

DEVICE = "" if ON_GPU else "--device cpu"
MADE_FOR = {"studies": "data/trained/", "benchmarks": "build/networks/"}  # by the name of what a notebook reads them with


@functools.cache
def missing(under):
    """The files of trainings, or the markers of networks, that are asked for at this scale and are not there."""
    from uqlib.experiments import worklist

    return [job.place for job in worklist.list_missing(SCALE) if job.place.startswith(under)]


def wanted(under):
    """The same; the marker of a network that is missing all the same, as its entries were removed, does not count."""
    for place in missing(under):
        if place.startswith("build/"):
            Path(place).unlink(missing_ok=True)
    return missing(under)


def needed_by(notebook):
    """What is to be made before a notebook runs; nothing at scale cpu or smoke."""
    text = Path(SOURCES[notebook]).read_text(encoding="utf-8") if ON_GPU else ""
    return [place for word, under in MADE_FOR.items() if word in text for place in wanted(under)]


def ingredients(wildcards):
    """The missing trainings of which a network is a soup, so that they are made side by side before it."""
    from uqlib.experiments import benchmarks

    bench = benchmarks.load_benchmark(wildcards.benchmark)
    network = bench.networks[wildcards.network]
    trials = bench.repeated[network.architecture] if network.role == "soup" else []
    return [place for place in missing("build/networks/") if place.rpartition("-")[0] in {f"build/networks/{bench.name}/{name}" for name in trials}]


rule trainings:
    input:
        lambda wildcards: missing("data/trained/"),


rule networks:
    input:
        lambda wildcards: wanted("build/networks/"),


rule training:
    """One training of a study. Its file is never removed: the command leaves one that is there alone."""
    output:
        update("data/trained/{study}/{variant}-{digest}-{seed}.safetensors"),
    wildcard_constraints:
        study=r"\w+",
        variant=r"[\w.]+",
        digest=r"[0-9a-f]{8}",
        seed=r"\d+",
    threads: 1
    resources:
        mem_mb=8000,
        gpu=int(ON_GPU),
        runtime=240 if ON_GPU else 60,  # minutes; one that is cut short goes on from its last epoch
    log:
        LOG / "trainings/{study}/{variant}-{digest}-{seed}.txt",
    shell:
        "{BIN}/uqlib train {wildcards.study} {wildcards.variant} {wildcards.seed} {DEVICE} > {log} 2>&1"
        " || {{ tail -n 3 {log}; exit 1; }}"


rule network:
    """One network of a benchmark, into the store; the marker says to Snakemake that it was made."""
    input:
        ingredients,
    output:
        touch("build/networks/{benchmark}/{network}-{digest}"),
    wildcard_constraints:
        benchmark=r"\w+",
        network=r"[\w.-]+",
        digest=r"[0-9a-f]{8}",
    threads: 1
    resources:
        mem_mb=16000,
        gpu=int(ON_GPU),
        runtime=480 if ON_GPU else 120,
    log:
        LOG / "networks/{benchmark}/{network}-{digest}.txt",
    shell:
        "{BIN}/uqlib network {wildcards.benchmark} {wildcards.network} {DEVICE} > {log} 2>&1"
        " || {{ tail -n 3 {log}; exit 1; }}"


rule difficulty:
    """How hard the images of CIFAR-10 are, by all scorers; columns that are there stay."""
    output:
        update("data/difficulty/cifar10.{split}.safetensors"),
    params:
        part=lambda wildcards: {"train": "images", "test": "images"}.get(wildcards.split, wildcards.split),
    threads: 1
    resources:
        mem_mb=8000,
        runtime=240,
    log:
        LOG / "difficulty/{split}.txt",
    shell:
        "{BIN}/uqlib difficulty {params.part} > {log} 2>&1 || {{ tail -n 3 {log}; exit 1; }}"


rule seconds:
    """How long the notebooks took here, for those who have no run of theirs to go by."""
    run:
        took = {name: round(seconds(name)) for name in SOURCES if (RESULTS / f"{name}.json").is_file()}
        LASTED.write_text(json.dumps(took, indent=1) + "\n", encoding="utf-8")
