# Needs GNU make and Python >= 3.11; everything else goes into .venv. `make` alone lists the targets.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
UV := $(BIN)/uv pip
UVX := $(BIN)/uv tool run --python $(BIN)/python
INSTALL := $(UV) install --python $(BIN)/python --only-binary :all:
COMPILE := $(UV) compile --quiet --universal --python-version 3.11 --generate-hashes --no-emit-index-url --no-annotate \
	--custom-compile-command "make requirements"
ARGS ?=
# Of the tests: most wait, and some need half the memory of a small machine.
WORKERS ?= 2

.DEFAULT_GOAL := help
.PHONY: help setup run test test-cluster test-alone stranger soak check format docs audit bench requirements clean
.DELETE_ON_ERROR:

help: ## List the targets
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "  make %-13s %s\n", $$1, $$2 }' Makefile
	@echo "Options: WORKERS=1 tests one after the other; PYTHON=python3.12 picks the interpreter of .venv; ARGS='...' is handed to run, test and bench."

setup: $(VENV)/.dev ## Create .venv with everything that run, test and check need

run: $(VENV)/.run ## Serve the embedded model on http://127.0.0.1:8000 until Ctrl-C
	exec $(BIN)/drift up $(ARGS)

test: $(VENV)/.dev ## Run the tests, in as many processes as WORKERS says, and at last those that must be alone
	$(BIN)/python -m pytest --numprocesses $(WORKERS) -m 'not alone' $(ARGS)
	$(if $(ARGS),,$(BIN)/python -m pytest -m alone)

test-cluster: $(VENV)/.dev ## Run the tests that need a Kubernetes, which they make (as root)
	$(BIN)/python -m pytest -m 'not alone' tests/cluster $(ARGS)

test-alone: $(VENV)/.dev ## Run the tests that take minutes and mind what runs beside
	$(BIN)/python -m pytest -m alone $(ARGS)

stranger: $(VENV)/.dev ## Take a stranger's path: clone, make run, console, replay, a killed node; then the same on a cluster
	DRIFT_STRANGER_CLONES=1 $(BIN)/python -m pytest tests/e2e/test_strangers_path.py tests/cluster/test_strangers_cluster.py $(ARGS)

soak: $(VENV)/.dev ## Soak a test cluster for an hour, with a fault every two minutes (as root)
	$(BIN)/python -m benchmarks.soak --json benchmarks/soak/results/soak.json $(ARGS)

check: $(VENV)/.dev ## Lint, formatting, types and layers
	$(BIN)/ruff check
	$(BIN)/ruff format --check
	$(BIN)/mypy
	$(BIN)/lint-imports

format: $(VENV)/.dev ## Format the code and fix what the linter can fix
	$(BIN)/ruff check --fix
	$(BIN)/ruff format

docs: $(VENV)/.dev ## Write docs/reference from the code and build the documentation as a site into build/site
	$(BIN)/python -m documentation
	$(BIN)/python -m documentation site

audit: $(VENV)/.tools ## Ask PyPI whether anything pinned has known holes (an answer for all of it, or a failure)
	$(UVX) pip-audit@2.10.1 --strict --disable-pip --require-hashes --progress-spinner off \
		$(foreach part,dev run engine router operator tools,--requirement requirements/$(part).txt)

bench: $(VENV)/.dev ## Run the benchmarks and write their results, on a machine that does nothing else (ARGS='reuse startup': these)
	$(BIN)/python -m benchmarks $(ARGS)

requirements: $(VENV)/.tools ## Pin requirements/*.txt again after a change of pyproject.toml (UPGRADE=--upgrade: newest versions)
	$(COMPILE) $(UPGRADE) --all-extras -c requirements/constraints.txt pyproject.toml -o requirements/dev.txt
	$(COMPILE) $(UPGRADE) --extra engine --extra gpu --extra plot --extra router --extra tracing -c requirements/dev.txt pyproject.toml -o requirements/run.txt
	$(COMPILE) $(UPGRADE) --extra engine --extra gpu --extra tracing -c requirements/dev.txt pyproject.toml -o requirements/engine.txt
	$(COMPILE) $(UPGRADE) --extra router --extra tracing -c requirements/dev.txt pyproject.toml -o requirements/router.txt
	$(COMPILE) $(UPGRADE) --extra operator -c requirements/dev.txt pyproject.toml -o requirements/operator.txt
	$(COMPILE) $(UPGRADE) -c requirements/dev.txt requirements/tools.in -o requirements/tools.txt
	$(COMPILE) $(UPGRADE) requirements/clients.in -o requirements/clients.txt
	$(COMPILE) $(UPGRADE) requirements/routers.in -o requirements/routers.txt

clean: ## Remove .venv and all caches
	rm -rf $(VENV) build dist .cache .mypy_cache .ruff_cache .pytest_cache .hypothesis .import_linter_cache
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
