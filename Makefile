# make book    execute the notebooks, build the book          make test    run the tests
# make train   what data/*.toml ask for and is not there      make bench   speed beside other libraries
# make lock    pin the newest versions
# Options: make book SCALE=gpu   make book CORES=8 GPUS=2   make book PROFILE=profiles/slurm   make train MINUTES=120   PYTHON=python3.12

PYTHON ?= python3
CORES ?= 2
GPUS ?= 1
SCALE ?= cpu
MINUTES ?= 60
VENV := .venv
BIN := $(VENV)/bin
# Every kernel has one thread, and CORES kernels run at a time: same bits on each run, and no threads that fight.
export OMP_NUM_THREADS ?= 1
export PYTHONHASHSEED := 0

.PHONY: book test train bench lock clean
.SILENT:
SHELL := bash

book: $(VENV)/.ready
	exec $(BIN)/python profiles/brief.py $(BIN)/snakemake $(if $(PROFILE),--profile $(PROFILE),--cores $(CORES) --resources gpu=$(GPUS)) --config scale=$(SCALE)
	echo "The book is at _build/html/index.html"

test: $(VENV)/.ready
	$(BIN)/pytest -n $(CORES) || { echo "Some tests failed; their names are above."; exit 1; }

train: $(VENV)/.ready
	exec env OMP_NUM_THREADS=1 $(BIN)/uqlib train --minutes $(MINUTES) --scale $(SCALE)

bench:
	test -d .bench || $(PYTHON) -m venv .bench
	.bench/bin/pip install -q -e '.[bench]'
	.bench/bin/python benchmarks/speed.py

$(VENV)/.ready: pyproject.toml requirements.lock
	echo "Making the environment in $(VENV): some 6 GB, a few minutes, once."
	$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
	  { echo "Python 3.11 or later is needed; '$(PYTHON)' is older. Try: make PYTHON=python3.11"; exit 1; }
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install -qq --upgrade pip
	$(BIN)/python -m pip install -qq -c requirements.lock -e '.[book,test]' || \
	  { echo "The environment could not be made; pip's message is above."; exit 1; }
	touch $@

lock:
	uv pip compile pyproject.toml --extra book --extra test --python-version 3.11 --universal --no-annotate --no-header -q -o requirements.lock

clean:
	rm -rf _build build book/results
