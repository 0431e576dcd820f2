# A fresh clone needs Python 3.11 or newer (with venv and pip) and make, nothing else:
#   make demo        or, with another interpreter:  make demo PYTHON=python3.13

PYTHON ?= python3
WORKERS ?= auto
PYTEST_ARGS ?=

VENV := .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.installed
PIP := -m pip --disable-pip-version-check --no-input -qq

.PHONY: help venv test demo lint types bench constraints clean

help:
	@echo 'make venv         set up $(VENV), with the versions of constraints.txt'
	@echo 'make test         run the tests (WORKERS=auto, PYTEST_ARGS=...)'
	@echo 'make demo         check and import the archives of fixtures/, and compare with what is expected'
	@echo 'make lint         ruff'
	@echo 'make types        mypy --strict'
	@echo 'make bench        tell how the benchmarks are run'
	@echo 'make constraints  pin the newest versions in constraints.txt'
	@echo 'make clean        remove $(VENV), caches and build output'
	@echo 'PYTHON=$(PYTHON) is the interpreter that $(VENV) is made with.'

venv: $(STAMP)

# Made anew rather than updated, so that it holds what constraints.txt says and nothing from before.
$(STAMP): pyproject.toml constraints.txt
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
		{ echo "swrbatch needs Python 3.11 or newer; name one: make PYTHON=python3.11 ..." >&2; exit 1; }
	@echo 'setting up $(VENV)'
	@$(PYTHON) -m venv --clear $(VENV)
	@$(BIN)/python $(PIP) install -c constraints.txt -e '.[test]'
	@touch $@

# Tests of one group (those that share a container engine) stay on one worker: loadgroup.
test: $(STAMP)
	$(BIN)/python -m pytest -n $(WORKERS) --dist loadgroup $(PYTEST_ARGS)

demo: $(STAMP)
	@$(BIN)/python fixtures/demo.py

lint: $(STAMP)
	$(BIN)/ruff check .

types: $(STAMP)
	$(BIN)/mypy

bench: $(STAMP)
	@echo 'The benchmarks are scripts in tests/benchmarks/, each run by itself on a quiet machine:'
	@ls tests/benchmarks/*.py 2>/dev/null | sed 's|^|  $(BIN)/python |' || true
	@echo 'What each measures and which peers it needs stands at its top.'

constraints:
	@d=$$(mktemp -d) && trap 'rm -rf "$$d"' EXIT && $(PYTHON) -m venv "$$d" && \
		"$$d/bin/python" $(PIP) install -e '.[test,postgres]' && \
		{ sed '/^[^#]/,$$d' constraints.txt; \
		  "$$d/bin/python" -m pip freeze --exclude-editable --disable-pip-version-check | grep '^[A-Za-z0-9._-]*=='; } > "$$d/new" && \
		cp "$$d/new" constraints.txt

clean:
	rm -rf $(VENV) build dist .mypy_cache .pytest_cache .ruff_cache .hypothesis
	find swrbatch tests fixtures -name __pycache__ -type d -prune -exec rm -rf {} +
