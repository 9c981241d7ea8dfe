# data -> store -> notebooks -> records -> ledger -> book. `make book` calls this; so does
#     snakemake --cores 2 --config scale=cpu            one machine
#     snakemake --profile profiles/slurm                a cluster, GPU jobs on GPU slots
# A notebook is stale when it, the parts of uqlib that it imports, the store or a parameter has changed; Snakemake says which.

import os
import shlex
import sys
from pathlib import Path

from uqlib import notebooks

SCALE = config.get("scale", "cpu")
SEED = config.get("seed", 0)
BIN = Path(sys.executable).parent
RESULTS = Path(config.get("results", "book/results"))
HTML = Path(config.get("html", "_build"))
LOG = Path("build/log")
SOURCES = {str(path.relative_to("notebooks").with_suffix("")): str(path) for path in notebooks.paths()}
STORE = sorted(map(str, Path("data/store").rglob("*.safetensors")))
CATALOGUE = ["data/benchmarks.toml", *map(str, Path("data/training").glob("*.json"))]
STUDIES = ["data/trainings.toml", *sorted(str(path) for name in ("trained", "difficulty") for path in Path("data", name).rglob("*.safetensors"))]
READ = {"uqlib/store.py": STORE, "uqlib/benchmarks.py": CATALOGUE, "uqlib/studies.py": STUDIES}  # data, by the code that reads them
PAGES_REST_ON = [f"uqlib/{part}.py" for part in ("pages", "records", "ledger", "notebooks", "benchmarks", "files")]
PAGES = [RESULTS / page for page in ("ledger.md", "summary.md", "scales.md", "parameters.md", "runs.md", "benchmarks.md")]


def code(name):
    """The parts of uqlib that a notebook imports, and what they import."""
    return [os.path.relpath(path) for path in notebooks.sources(SOURCES[name])]


wildcard_constraints:
    notebook="[a-z0-9_]+/[a-z0-9_]+",


localrules:
    all, pages, book,


rule all:
    input:
        HTML / "html/.buildinfo",
        [RESULTS / f"{name}.{kind}" for name in SOURCES for kind in ("ipynb", "json")],


rule run:
    """Execute a notebook by papermill, with every parameter checked; its record is written beside the copy."""
    input:
        notebook=lambda wildcards: SOURCES[wildcards.notebook],
        code=lambda wildcards: code(wildcards.notebook),
        data=lambda wildcards: [path for part in code(wildcards.notebook) for path in READ.get(part, [])],
        ledger=lambda wildcards: f"data/ledger/{Path(wildcards.notebook).parent}.toml",
    output:
        notebook=RESULTS / "{notebook}.ipynb",
        record=RESULTS / "{notebook}.json",
        figures=directory(RESULTS / "{notebook}.figures"),
    params:
        scale=SCALE,
        seed=SEED,
    threads: 1
    resources:
        mem_mb=4000,
        gpu=int(SCALE in ("gpu", "paper")),
    log:
        LOG / "{notebook}.txt",
    shell:
        "{BIN}/uqlib run {input.notebook} -o {output.notebook} -p scale {params.scale} -p seed {params.seed}"
        " -p record {output.record} > {log} 2>&1 || {{ tail -n 3 {log}; exit 1; }}"


rule pages:
    """Ledger, parameters and runs, computed from the records."""
    input:
        records=[RESULTS / f"{name}.json" for name in SOURCES],
        published=sorted(Path("data/records").rglob("*.json")),
        ledgers=sorted(Path("data/ledger").glob("*.toml")),
        notebooks=list(SOURCES.values()),
        store=STORE,
        catalogue=CATALOGUE,
        code=["uqlib/cli.py", *map(os.path.relpath, notebooks.closure(PAGES_REST_ON))],
    output:
        PAGES,
    log:
        LOG / "pages.txt",
    shell:
        "{BIN}/uqlib pages --results {RESULTS} > {log} 2>&1 || {{ tail -n 3 {log}; exit 1; }}"


rule book:
    """The HTML; every warning is an error."""
    input:
        [RESULTS / f"{name}.ipynb" for name in SOURCES],
        PAGES,
        "_config.yml",
        [path for path in sorted(Path("book").rglob("*")) if path.is_file() and RESULTS not in path.parents],
        sorted(Path("uqlib").rglob("*.py")),  # the API page shows the docstrings
    output:
        # Snakemake removes an output before the rule runs and after it failed. This one is what Sphinx notes for itself: the
        # pages stay for whoever reads them, until `uqlib book` puts the new ones in their place, all at once.
        HTML / "html/.buildinfo",
    log:
        LOG / "book.txt",
    shell:
        "{BIN}/uqlib book --html {HTML}/html > {log} 2>&1"
        " || {{ grep -aE 'WARNING|ERROR|CRITICAL|rror:' {log} || tail -n 5 {log}; exit 1; }}"
