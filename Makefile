# Needs GNU make and Python >= 3.11; everything else goes into .venv. `make` alone lists the targets.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
UV := $(BIN)/uv pip
INSTALL := $(UV) install --python $(BIN)/python --only-binary :all:
COMPILE := $(UV) compile --quiet --universal --python-version 3.11 --generate-hashes --no-emit-index-url --no-annotate \
	--custom-compile-command "make requirements"
ARGS ?=

.DEFAULT_GOAL := help
.PHONY: help setup run test check format bench requirements clean
.DELETE_ON_ERROR:

help: ## List the targets
	@awk -F ':.*## ' '/^[a-z]+:.*## / { printf "  make %-13s %s\n", $$1, $$2 }' Makefile
	@echo "Options: PYTHON=python3.12 picks the interpreter of .venv; ARGS='...' is handed to run, test and bench."

setup: $(VENV)/.dev ## Create .venv with everything that run, test and check need

run: $(VENV)/.run ## Serve the embedded model on http://127.0.0.1:8000 until Ctrl-C
	exec $(BIN)/drift up $(ARGS)

test: $(VENV)/.dev ## Run the tests
	$(BIN)/python -m pytest $(ARGS)

check: $(VENV)/.dev ## Lint, formatting, types and layers
	$(BIN)/ruff check
	$(BIN)/ruff format --check
	$(BIN)/mypy
	$(BIN)/lint-imports

format: $(VENV)/.dev ## Format the code and fix what the linter can fix
	$(BIN)/ruff check --fix
	$(BIN)/ruff format

bench: $(VENV)/.dev ## Run the benchmarks and write their results, on a machine that does nothing else (ARGS='reuse startup': these)
	$(BIN)/python -m benchmarks $(ARGS)

requirements: $(VENV)/.tools ## Pin requirements/*.txt again after a change of pyproject.toml (UPGRADE=--upgrade: newest versions)
	$(COMPILE) $(UPGRADE) --all-extras -c requirements/constraints.txt pyproject.toml -o requirements/dev.txt
	$(COMPILE) $(UPGRADE) --extra engine --extra gpu --extra plot --extra router --extra operator -c requirements/dev.txt pyproject.toml -o requirements/run.txt
	$(COMPILE) $(UPGRADE) -c requirements/dev.txt requirements/tools.in -o requirements/tools.txt

clean: ## Remove .venv and all caches
	rm -rf $(VENV) dist .mypy_cache .ruff_cache .pytest_cache .hypothesis .import_linter_cache
	find . -name __pycache__ -type d -prune -exec rm -rf {} +

# Stamps: a target of make is up to date when its requirements are no newer.
$(VENV)/.tools: requirements/tools.txt
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { \
		echo "make: Drift needs Python 3.11 or newer, and '$(PYTHON)' is older or missing." \
		"Debian 12 and later: apt-get install python3 python3-venv. Another interpreter: make PYTHON=python3.12 ..." >&2; exit 1; }
	@$(PYTHON) -c 'import ensurepip, venv' 2>/dev/null || { \
		echo "make: '$(PYTHON)' can't create virtual environments. Debian and Ubuntu: apt-get install python3-venv." >&2; exit 1; }
	$(PYTHON) -m venv --clear $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --no-deps --only-binary :all: --require-hashes -r $<
	@touch $@

$(VENV)/.run $(VENV)/.dev: $(VENV)/.%: requirements/%.txt pyproject.toml $(VENV)/.tools
	$(INSTALL) --require-hashes -r $<
	$(INSTALL) --quiet --offline --no-deps --no-build-isolation --editable .
	@touch $@
