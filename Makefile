# `make train` and `make test` set up everything they need in a virtual environment of their own.
# Another Python: make test PYTHON=python3.12
PYTHON ?= python3
VENV ?= .venv-$(shell $(PYTHON) -c 'import sys; print("%d.%d" % sys.version_info[:2])')
BIN := $(VENV)/bin
ARGS ?=
SEED ?= $(shell date +%s)
# Test processes; compilation takes most of the time, and one core each. A file is one process's: its tests share what
# their fixtures train and compile.
WORKERS ?= 2
PYTEST := $(BIN)/python -m pytest -n $(WORKERS) --dist loadfile

.PHONY: train test test-random test-slow test-plan smoke check browser format docs bench dist release-check clean

train: $(VENV)/.run
	$(BIN)/python -m jaxppo.train --preset quick_test $(ARGS)

test: check browser
	$(PYTEST) $(ARGS)

# In an order drawn by chance; a failure comes again with the SEED that make shows.
test-random: $(VENV)/.test
	$(PYTEST) --random-order $(SEED) $(ARGS)

test-slow: $(VENV)/.test
	COMPILED_AS_USERS_DO=true $(PYTEST) -m slow $(ARGS)

# The planner against XLA's own CUDA compiler (223 MB, apart from the rest): no GPU is needed, none is used.
test-plan: $(VENV)/.test $(VENV)/plan
	PYTHONPATH=$(VENV)/plan $(BIN)/python -m jaxppo.plan --gpu a100-40gb --n-symbols 2 --n-bars 1800 \
		--features base --n-envs 64 --lanes 8 --n-steps 4 --episode-steps 16 --minibatches 2 --window 8 --no-largest
	PYTHONPATH=$(VENV)/plan $(BIN)/python -m pytest tests/test_plan.py tests/test_planning.py

$(VENV)/plan: constraints.txt | $(VENV)/bin/python
	rm -rf $@ $@.part
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt --no-deps --target $@.part \
		jax-cuda12-plugin jax-cuda12-pjrt nvidia-cuda-nvcc-cu12
	mv $@.part $@

# Lint and types, a short run from data to report, and the fast tests of the arithmetic: for a second Python version.
smoke: check
	rm -rf $(VENV)/smoke
	$(BIN)/python -m jaxppo.train --run-dir $(VENV)/smoke --n-envs 256 --n-updates 4 --validate-every 2
	$(BIN)/python -m pytest tests/test_account.py tests/test_metrics.py tests/test_schedule.py tests/test_bars.py

check: $(VENV)/.test
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy jaxppo

# Tests of pages open them in Chromium. Where it is not there and cannot be installed they are skipped.
browser:
	@for name in chromium chromium-browser google-chrome; do command -v $$name >/dev/null && exit 0; done; \
		echo "installing Chromium"; \
		{ apt-get update -qq && apt-get install -y -qq --no-install-recommends chromium fonts-dejavu-core; } >/dev/null \
		|| echo "no Chromium: the tests of pages are not run"

format: $(VENV)/.test
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

# The site, into site/: open site/index.html. Nothing is fetched; a link or a name that leads nowhere is an error.
docs: $(VENV)/.test
	NO_MKDOCS_2_WARNING=1 $(BIN)/python -m mkdocs build --strict --quiet

bench: $(VENV)/.test
	$(BIN)/python benchmarks/throughput.py
	$(BIN)/python benchmarks/stages.py
	$(BIN)/python benchmarks/scale.py
	$(BIN)/python -m benchmarks.devices 1 2 4 8
	$(BIN)/python benchmarks/learning.py
	$(BIN)/python benchmarks/ledger.py
	$(BIN)/python benchmarks/backtest.py
	$(BIN)/python benchmarks/walkforward.py
	$(BIN)/python -m benchmarks.robustness

# Wheel and sdist in dist/, the same bytes whenever and wherever they are built. The wheel is built from the sdist.
dist: $(VENV)/dist/.done
	rm -rf dist
	$(VENV)/dist/bin/python -m build --no-isolation
	$(VENV)/dist/bin/python -m twine check --strict dist/*

# What is in them, and that they install with what they need and train, outside of a checkout, on every Python there is.
release-check: dist $(VENV)/.test
	$(BIN)/python -m pytest tests/test_release.py
	$(BIN)/python -m pytest -m slow tests/test_release.py

$(VENV)/bin/python:
	$(PYTHON) -m venv $(VENV)

$(VENV)/dist/.done: pyproject.toml constraints.txt | $(VENV)/bin/python
	rm -rf $(VENV)/dist
	$(PYTHON) -m venv $(VENV)/dist
	$(VENV)/dist/bin/python -m pip install --quiet --disable-pip-version-check -c constraints.txt build hatchling twine
	touch $@

$(VENV)/.run: pyproject.toml constraints.txt | $(VENV)/bin/python
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt -e .
	touch $@

$(VENV)/.test: pyproject.toml constraints.txt | $(VENV)/bin/python
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt -e '.[test]'
	touch $@ $(VENV)/.run

clean:
	rm -rf dist site .venv-* .pytest_cache .mypy_cache .ruff_cache .hypothesis
