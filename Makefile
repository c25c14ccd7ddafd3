# Everything sets itself up: the first target you ask for makes the virtual environment.
#   make PYTHON=/path/to/python3.11 test     chooses the interpreter
#   make VENV=/somewhere/else test           chooses where the environment lies

VENV ?= .venv
PYTHON ?=
export PYTHON

.PHONY: help demo test mutate bench gpu-bundle lint format docs setup clean
.DEFAULT_GOAL := help

help: ## list the targets
	@grep -hE '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/^([a-z-]+):[^#]*## (.*)/  make \1\t\2/' | expand -t 20

demo: $(VENV)/.ready ## train a small model on real text and watch it write (10 minutes)
	$(VENV)/bin/blt demo

test: lint ## lint, type-check and run the tests
	$(VENV)/bin/pytest --numprocesses auto --dist worksteal

mutate: $(VENV)/.ready-dev ## make mistakes in a copy of the core; does a test notice each? (10 minutes)
	$(VENV)/bin/python tools/mutate.py

bench: $(VENV)/.ready-bench ## measure speed and memory beside transformers
	mkdir -p runs && $(VENV)/bin/python -m benchmarks cpu --json runs/bench.json

gpu-bundle: $(VENV)/.ready ## pack what a GPU machine without a network needs to be measured
	$(VENV)/bin/python tools/gpu_bundle.py

lint: $(VENV)/.ready-dev ## ruff, import-linter and mypy
	$(VENV)/bin/ruff check .
	$(VENV)/bin/ruff format --check .
	$(VENV)/bin/lint-imports
	$(VENV)/bin/mypy

format: $(VENV)/.ready-dev ## let ruff rewrite what it can
	$(VENV)/bin/ruff check --fix .
	$(VENV)/bin/ruff format .

docs: $(VENV)/.ready-docs ## build the documentation site into build/docs
	$(VENV)/bin/python -m sphinx -W --keep-going -q -b html docs build/docs

setup: $(VENV)/.ready-dev ## only make the development environment

clean: ## remove caches and builds (the environment and runs/ stay)
	rm -rf build dist .pytest_cache .mypy_cache .ruff_cache .hypothesis
	find src tests benchmarks -name __pycache__ -prune -exec rm -rf {} +

# A stamp per extra: setting up again takes no time until pyproject.toml changes.
$(VENV)/.ready: pyproject.toml tools/setup.sh
	bash tools/setup.sh $(VENV)
	@touch $@

$(VENV)/.ready-%: pyproject.toml tools/setup.sh
	bash tools/setup.sh $(VENV) $*
	@touch $@
