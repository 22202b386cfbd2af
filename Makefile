# Everything that this repository does, as one command each. 'make help' lists them.

PYTHON ?= python3
VENV ?= .venv
WORKERS ?= 2
BIN := $(VENV)/bin
SITE := build/types/site

DEV_TOOLS := pytest pytest-xdist hypothesis mypy ruff import-linter
SOURCE_FOLDERS := $(wildcard mpcc compiler passes backends runtime marill)

export HF_HUB_OFFLINE := 1

.DEFAULT_GOAL := help
.PHONY: help venv shell installed test lint types smoke test-fast test-slow fuzz faults demo clean

help: ## list the targets
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "  make %-10s %s\n", $$1, $$2 }' $(firstword $(MAKEFILE_LIST))

venv: $(VENV)/.package ## create the virtual environment with everything in it (once)

$(VENV)/.python:
	$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "Python 3.11 or newer is needed")'
	$(PYTHON) -m venv $(VENV)
	touch $@

$(VENV)/.tools: $(VENV)/.python constraints.txt examples/requirements.txt
	$(BIN)/python -m pip install --quiet --constraint constraints.txt $(DEV_TOOLS)
	$(BIN)/python -m pip install --quiet --no-deps --require-hashes --requirement examples/requirements.txt
	touch $@

$(VENV)/.package: $(VENV)/.tools setup.cfg pyproject.toml
	$(BIN)/python -m pip install --quiet --constraint constraints.txt --editable '.[spu,benchmarks]'
	touch $@

shell: venv ## a shell in which mpcc and python are those of the virtual environment
	@echo "mpcc is $(CURDIR)/$(BIN)/mpcc here; exit leaves this shell"
	@PATH="$(CURDIR)/$(BIN):$$PATH" VIRTUAL_ENV="$(CURDIR)/$(VENV)" $${SHELL:-sh}

test: lint types test-fast test-slow ## everything that has to pass: lint, types, all tests

# Layers and types are checked on an installed copy: in an editable tree the tools find ./mpcc and none of its subpackages.
installed: venv
	rm -rf build/types build/lib && mkdir -p build/types
	$(BIN)/python -m pip install --quiet --no-deps --target $(SITE) .

lint: installed ## ruff: rules and format; import-linter: the layers; sizes and circles
	$(BIN)/python -m ruff check .
	$(BIN)/python -m ruff format --check .
	cd $(SITE) && $(CURDIR)/$(BIN)/lint-imports $(CURDIR)/pyproject.toml --no-cache --no-logo
	$(BIN)/python -m pytest -q tests/structure

types: installed ## mypy, strict
	cd $(SITE) && $(CURDIR)/$(BIN)/python -m mypy --config-file $(CURDIR)/pyproject.toml -p mpcc
	MYPYPATH=$(SITE) $(BIN)/python -m mypy -p examples.sentiment

# One thread a process: the libraries' own threads fight over the cores that the workers share.
smoke test-fast test-slow fuzz faults: export OMP_NUM_THREADS := 1
smoke test-fast test-slow fuzz faults: export OPENBLAS_NUM_THREADS := 1

smoke: venv ## seconds: a tiny BERT through compiler, verifiers, emulator and stand-in
	$(BIN)/python -m pytest -q tests/smoke

test-fast: venv ## the tests that take seconds
	$(BIN)/python -m pytest -m "not slow and not mp_spdz" -n $(WORKERS) --dist loadgroup

test-slow: venv ## the tests that take longer, and those on a real MP-SPDZ (skipped without MP_SPDZ_HOME)
	$(BIN)/python -m pytest -m "slow or mp_spdz" -n $(WORKERS) --dist loadgroup -rs

CASES ?= 100000

fuzz: venv ## feed changed files to every reader, CASES of them, and write docs/fuzzing.md
	$(BIN)/python -W ignore -m tests.fuzz --cases $(CASES) --report docs/fuzzing.md

faults: venv ## every fault and attack, on the engines that are here; then docs/reliability.md is written
	$(BIN)/python -m pytest -q tests/faults -rs
	$(BIN)/python -m tests.faults.report

demo: venv ## train the sentiment model, compile it, run it
	$(BIN)/python -m examples.sentiment.train
	$(BIN)/python -m examples.sentiment.demo

clean: ## remove what was built and every cache; the virtual environment stays
	rm -rf build dist *.egg-info .mypy_cache .ruff_cache .pytest_cache .hypothesis
	find $(SOURCE_FOLDERS) examples tests -name __pycache__ -type d -prune -exec rm -rf {} +
