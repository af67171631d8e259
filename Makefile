# Two commands: `make run` shows a network and its faults, `make test` proves the code. See README.md.
SHELL := /bin/bash
PYTHON ?= python3
PROFILE ?= site
PY := .venv/bin/python
STAMP := .venv/.made-$(PROFILE)
export TOCSIN_STATE_DIR ?= $(HOME)/.local/state/tocsin

.PHONY: setup setup-dev run check test test-deep perf

$(STAMP): pyproject.toml constraints.txt
	@echo "Making the environment in .venv (profile $(PROFILE)): about $(if $(filter sensor,$(PROFILE)),120,350) MB are downloaded once."
	@echo "For less: make run PROFILE=sensor (no SQL history, about 120 MB)."
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { echo "Python 3.11 or newer is needed; PYTHON=/path/to/python3 names another."; exit 2; }
	@[ -x $(PY) ] || $(PYTHON) -m venv .venv || { echo "python3-venv is missing: apt install python3-venv"; exit 2; }
	@$(PY) -m pip install --quiet --disable-pip-version-check --only-binary=:all: --constraint constraints.txt --editable '.[$(if $(filter sensor,$(PROFILE)),jit,site)]'
	@touch $@

setup: $(STAMP)
	@$(PY) -m tocsin warm

.venv/.made-dev: $(STAMP)
	@echo "Adding the tools for tests and checks: about 60 MB."
	@$(PY) -m pip install --quiet --disable-pip-version-check --only-binary=:all: --constraint constraints.txt --editable '.[site,dev]'
	@touch $@

setup-dev: .venv/.made-dev

run: $(STAMP)
	@$(PY) -m tocsin demo $(if $(FOR),--for $(FOR)) $(if $(SEED),--seed $(SEED)) --profile $(PROFILE)

check: setup-dev
	.venv/bin/ruff format --check .
	.venv/bin/ruff check .
	.venv/bin/mypy
	.venv/bin/lint-imports

test: setup-dev
	@deploy/test.sh

test-deep: setup-dev
	@DEEP=1 deploy/test.sh

perf: setup-dev
	@for part in perf/[a-z]*.py; do $(PY) $$part || exit 1; done
