# Two commands: `make demo` and `make test`. Both make .venv first. PYTHON chooses the interpreter (3.11 or newer).
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
PIP := $(BIN)/pip install --quiet --disable-pip-version-check --constraint constraints.txt

.PHONY: demo test test-gpu test-peers check check-cuda install install-test browser torture bench-stats bench-train \
	bench-scripts bench-faults clean

demo: install
	$(BIN)/actograph train mnist

install: $(VENV)/.installed

$(VENV)/.installed: pyproject.toml constraints.txt
	$(PYTHON) -c 'import sys; sys.version_info >= (3, 11) or sys.exit("actograph needs Python 3.11 or newer; set PYTHON=python3.11")'
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(PIP) torch
	$(PIP) --editable '.[mnist]'
	touch $@

test: install-test browser check
	$(BIN)/python -m pytest --numprocesses 2 --dist loadgroup --cov --cov-report=term

check: install-test
	$(BIN)/ruff format --check src tests
	$(BIN)/ruff check src tests
	$(BIN)/mypy
	$(BIN)/lint-imports --no-cache

# The CUDA back end in Triton's interpreter, without a card (half a minute; Triton is 1 GB on the disk)
test-gpu: $(VENV)/.installed-gpu-test
	TRITON_INTERPRET=1 $(BIN)/python -m pytest tests/sketch/test_triton_kernel.py

# The same on a card, with what needs one, and what it costs there; for a Python that has torch, triton and pytest
check-cuda:
	PYTHON=$(PYTHON) sh benchmarks/gpu_check.sh

install-test: $(VENV)/.installed-test

$(VENV)/.installed-test: $(VENV)/.installed
	$(PIP) --editable '.[mnist,test]'
	touch $@

$(VENV)/.installed-gpu-test: $(VENV)/.installed-test
	$(PIP) --editable '.[mnist,test,gpu-test]'
	touch $@

PEERS ?= $(BIN)/python
# Trainers under observation, the heavy ones too; PEERS is the python of another environment that has them
test-peers: install-test
	$(if $(findstring $(BIN),$(PEERS)),$(PIP) --editable '.[mnist,test,peers]')
	PEERS=$(PEERS) $(BIN)/python -m pytest tests/peers

# The report is tested in a real browser: Debian's, when there is none yet (needs the rights to install packages)
browser:
	@command -v chromium >/dev/null || { apt-get update -qq && apt-get install -y -qq --no-install-recommends chromium; }

# What recording costs beside other libraries (benchmarks/README.md)
bench-stats: install
	PYTHONPATH=src $(PEERS) benchmarks/bench_stats.py --out benchmarks/results-stats.md

# What a training loop costs, and how soon a recipe gets there, beside other libraries; goes on where it was stopped
bench-train: install
	PYTHONPATH=src $(PEERS) benchmarks/bench_train.py --out benchmarks/results-train.md
	PYTHONPATH=src $(PEERS) benchmarks/bench_accuracy.py --report --runs benchmarks/results-accuracy.jsonl --out benchmarks/results-accuracy.md

# How much longer whole scripts take under `actograph run`, beside other libraries
bench-scripts: install
	PYTHONPATH=src $(PEERS) benchmarks/bench_scripts.py --out benchmarks/results-scripts.md

FAULT_RUNS ?= runs-faults
SHARD ?= 1/1
# What diagnosers say of broken and of healthy trainings; goes on where it was stopped. SHARD=1/4 does the first of four parts,
# and the last part's machine, given the folders of all, the tables
bench-faults: install
	$(BIN)/python benchmarks/bench_faults.py run --shard $(SHARD) --out $(FAULT_RUNS)
	$(BIN)/python benchmarks/bench_faults.py score --half test --diagnosers ours,smd,smd-tensors,autotrainer,torchmortem,torch-audit \
		--out $(FAULT_RUNS) > benchmarks/results-faults.md
	$(BIN)/python benchmarks/bench_faults.py repair --half test --seeds 3 --out $(FAULT_RUNS) >> benchmarks/results-faults.md

# A hundred kills in the middle of a save, where `make test` has ten
torture: install-test
	ACTOGRAPH_KILLS=100 $(BIN)/python -m pytest tests/train/test_kill.py

clean:
	rm -rf $(VENV) build dist src/*.egg-info .coverage*
