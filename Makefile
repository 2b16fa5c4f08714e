# make demo         fit, compare and generate on real data (examples/quickstart.py)
# make test         lint and the whole test suite
# Each one first creates .venv and installs what it needs, once.
#
# make lint         ruff, the formatter's check, mypy
# make format       what the first two of these can mend
# make test-oldest  the suite with the oldest releases that pyproject.toml admits, on the oldest Python
# make test-newest  the suite with the newest releases there are, on the newest Python found
# make docs         the pages, into docs/_build; a warning is an error
# make site-check   the built pages, clicked through in a headless Chromium
# make audit        vulnerabilities on record for what the package installs
# make release-check  wheel and sdist, built, and installed and tried in bare environments
# make house        how airy the code is, beside other packages
#
# make bench        speed: against peers (see bench-peers), against rows and columns, in searches
# make bench-peers  the peers' virtual environments, once
# make bench-tables quality of rows, features and densities on real tables (SKVAE_DATA names their folder)
# make bench-missing, make bench-latent, make bench-augmentation   likewise
# make bench-prediction, make bench-outliers   likewise
# make bench-small     rows of small tables by the default, and by what larger ones get
# make bench-stream   memory, time and quality of fits to 20 million rows
# make bench-ranks    steps per second of several processes that train together
# make fuzz         20,000 random tables and sequences of calls, 10,000 mutated files (about half an hour)
# make bench-calls  a fit and the calls after it; BEFORE=FOLDER: this source tree beside that of another version
# make bench-budget held-out likelihood against the time of a fit, by training budget; BEFORE=FOLDER: by version

PYTHON ?= python3
PYTHON_OLDEST ?= python3.11
# The newest of these that answers. Where pyenv keeps several Pythons, a name answers only with its version told.
PYTHON_NEWEST ?= $(shell for name in python3.14 python3.13 python3.12 python3.11; do \
	PYENV_VERSION=$$(pyenv whence $$name 2>/dev/null | tail -n 1) $$name -c 'import sys; print(sys.executable)' 2>/dev/null && break; \
done)
HOUSE_ANCHORS ?= sklearn.mixture zuko torch.distributions skglm skorch
VENV := .venv
BEFORE ?=
PEERS := skorch pythae pyod ctgan keras jax mostlyai
BIN := $(VENV)/bin
PIP := $(BIN)/python -m pip install --quiet --disable-pip-version-check --constraint constraints.txt
UV := $(BIN)/uv --quiet
# numpy's OpenBLAS shall find the processor by itself, as it does where nobody has set these
BENCH := env -u OPENBLAS_CORETYPE -u OPENBLAS_L2_SIZE $(BIN)/python tests/benchmarks

.PHONY: demo test lint format test-oldest test-newest docs site-check house audit release-check
.PHONY: fuzz bench bench-peers bench-prediction bench-outliers bench-ranks bench-small bench-stream bench-tables bench-missing bench-latent bench-augmentation bench-calls bench-budget clean

demo: $(VENV)/.demo
	$(BIN)/python examples/quickstart.py

test: lint
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest --numprocesses=auto

lint: $(VENV)/.dev
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

format: $(VENV)/.dev
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

test-oldest: .venv-oldest/.done
	OMP_NUM_THREADS=1 .venv-oldest/bin/python -m pytest --numprocesses=auto

test-newest: .venv-newest/.created
	$(UV) pip install --python .venv-newest --upgrade --requirement pyproject.toml --extra test
	$(UV) pip install --python .venv-newest --no-deps --editable .
	OMP_NUM_THREADS=1 .venv-newest/bin/python -m pytest --numprocesses=auto

docs: $(VENV)/.docs
	$(BIN)/python -m sphinx -q -W --keep-going docs docs/_build

site-check: docs
	$(PIP) --editable '.[site]'
	$(BIN)/python tests/site_check.py

audit: $(VENV)/.dev
	mkdir -p build
	$(UV) pip compile pyproject.toml --all-extras --constraint constraints.txt --output-file build/audited.txt
	$(UV) tool run pip-audit --requirement build/audited.txt --no-deps --disable-pip

release-check: $(VENV)/.dev
	rm -rf dist .venv-release
	$(UV) build --out-dir dist
	for package in dist/*.whl dist/*.tar.gz; do \
		$(UV) venv --clear .venv-release && \
		$(UV) pip install --python .venv-release --constraint constraints.txt $$package && \
		(cd dist && ../.venv-release/bin/python ../tests/release.py) || exit 1; \
	done

house: $(VENV)/.dev
	$(BIN)/python tests/house.py skvae --beside $(HOUSE_ANCHORS)

bench: $(VENV)/.dev
	$(BENCH)/bench_training.py
	$(BENCH)/bench_scaling.py
	$(BENCH)/bench_search.py

bench-tables bench-missing bench-latent bench-augmentation bench-prediction bench-outliers: bench-%: $(VENV)/.dev
	OMP_NUM_THREADS=1 $(BENCH)/bench_$*.py --output $*.jsonl

fuzz: $(VENV)/.dev
	SKVAE_FUZZ=20000 OMP_NUM_THREADS=1 $(BIN)/python -m pytest tests/test_fuzz.py
	SKVAE_FUZZ=20000 OMP_NUM_THREADS=1 $(BIN)/python -m pytest tests/test_persistence.py -k mutated

bench-stream: $(VENV)/.dev
	OMP_NUM_THREADS=1 $(BENCH)/bench_stream.py

bench-ranks bench-small: bench-%: $(VENV)/.dev
	OMP_NUM_THREADS=1 $(BENCH)/bench_$*.py

bench-calls: $(VENV)/.dev
	$(BENCH)/bench_calls.py --page $(and $(BEFORE),before=$(BEFORE) now=.)

bench-budget: $(VENV)/.dev
	$(BENCH)/bench_budget.py $(and $(BEFORE),before=$(BEFORE) now=.)

bench-peers: $(PEERS:%=.venv-bench/%/.done)

.venv-bench/%/.done: tests/benchmarks/requirements-%.txt constraints.txt
	test -x .venv-bench/$*/bin/python || $(PYTHON) -m venv .venv-bench/$*
	.venv-bench/$*/bin/python -m pip install --quiet --constraint constraints.txt torch
	.venv-bench/$*/bin/python -m pip install --quiet --constraint constraints.txt --requirement $<
	# tables need neither of these, and a torch without CUDA cannot load their builds with it
	.venv-bench/$*/bin/python -m pip uninstall --quiet --yes torchaudio torchvision
	touch $@

.venv-oldest/.done: pyproject.toml $(VENV)/.dev
	$(UV) venv --clear --python $(PYTHON_OLDEST) .venv-oldest
	$(UV) pip install --python .venv-oldest --resolution lowest-direct --requirement pyproject.toml --extra test
	$(UV) pip install --python .venv-oldest --no-deps --editable .
	touch $@

.venv-newest/.created: $(VENV)/.dev
	$(UV) venv --clear --python $(PYTHON_NEWEST) .venv-newest
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
	rm -rf $(VENV) .venv-oldest .venv-newest build *.egg-info docs/_build docs/auto_examples docs/generated
