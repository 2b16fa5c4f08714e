# make demo   fit, compare and generate on real data (examples/quickstart.py)
# make test   lint and the whole test suite
# Each one first creates .venv and installs what it needs, once.
#
# make bench          speed: against peers (see bench-peers), against rows and columns, in searches
# make bench-peers    the peers' virtual environments, once
# make bench-tables   quality of rows, features and densities on real tables (SKVAE_DATA names their folder)
# make bench-missing, make bench-latent, make bench-augmentation   likewise
# make docs           the pages, into docs/_build

PYTHON ?= python3
VENV := .venv
PEERS := skorch pythae pyod ctgan keras jax
BIN := $(VENV)/bin
PIP := $(BIN)/python -m pip install --quiet --disable-pip-version-check --constraint constraints.txt

.PHONY: demo test lint docs bench bench-peers bench-tables bench-missing bench-latent bench-augmentation clean

demo: $(VENV)/.demo
	$(BIN)/python examples/quickstart.py

test: $(VENV)/.dev
	$(BIN)/ruff check .
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest --numprocesses=auto

lint: $(VENV)/.dev
	$(BIN)/ruff check .

docs: $(VENV)/.docs
	$(BIN)/python -m sphinx -q -W docs docs/_build

bench: $(VENV)/.dev
	$(BIN)/python tests/benchmarks/bench_training.py
	$(BIN)/python tests/benchmarks/bench_scaling.py
	$(BIN)/python tests/benchmarks/bench_search.py

bench-tables bench-missing bench-latent bench-augmentation: bench-%: $(VENV)/.dev
	OMP_NUM_THREADS=1 $(BIN)/python tests/benchmarks/bench_$*.py --output $*.jsonl

bench-peers: $(PEERS:%=.venv-bench/%/.done)

.venv-bench/%/.done: tests/benchmarks/requirements-%.txt constraints.txt
	test -x .venv-bench/$*/bin/python || $(PYTHON) -m venv .venv-bench/$*
	.venv-bench/$*/bin/python -m pip install --quiet --constraint constraints.txt torch
	.venv-bench/$*/bin/python -m pip install --quiet --constraint constraints.txt --requirement $<
	touch $@

$(VENV)/.torch: constraints.txt
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(PIP) torch
	touch $@

$(VENV)/.demo: $(VENV)/.torch pyproject.toml
	$(PIP) --editable '.[demo]'
	touch $@

$(VENV)/.dev: $(VENV)/.torch pyproject.toml
	$(PIP) --editable '.[dev]'
	touch $@

$(VENV)/.docs: $(VENV)/.torch pyproject.toml
	$(PIP) --editable '.[docs]'
	touch $@

clean:
	rm -rf $(VENV) build *.egg-info skvae.egg-info
