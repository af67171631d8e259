# Two commands: `make run` shows a network and its faults, `make test` proves the code. See README.md.
SHELL := /bin/bash
PYTHON ?= python3
PROFILE ?= site
PY := .venv/bin/python
# What an environment is made of. A stamp carries this mark in its name, so that nothing is installed
# again for a new date on a file, and everything is when a pin, the interpreter or the folder changed.
MARK := $(shell { sed "/^\[tool/,$$d" pyproject.toml; cat constraints.txt; $(PYTHON) -c 'import sys; print(sys.version_info[:2])'; pwd; } 2>&1 | sha256sum | cut -c1-12)
RUNS := .venv/.made-$(PROFILE)-$(MARK)
TESTS := .venv/.made-dev-$(MARK)
comma := ,
PIP := $(PY) -m pip install --quiet --disable-pip-version-check --only-binary=:all: --constraint constraints.txt
export TOCSIN_STATE_DIR ?= $(HOME)/.local/state/tocsin

# A sensor whose kernels were compiled ahead of time (make library) needs no numba: 200 MB less on disk,
# 150 MB less in memory.
LIBRARY := $(wildcard runtime/kernels-$(shell uname -m)-*.so)
EXTRAS-sensor := $(if $(LIBRARY),,[jit])
EXTRAS-site := [site]
EXTRAS-core := [core]
EXTRAS-dev := [dev$(comma)site]

.PHONY: setup setup-dev library run check test test-deep perf plan plan-deep clean

# The tests' environment and `site` have all that `sensor` needs.
ifneq ($(wildcard $(TESTS)),)
RUNS := $(TESTS)
else ifneq ($(wildcard .venv/.made-site-$(MARK)),)
RUNS := .venv/.made-site-$(MARK)
endif

.venv/.made-%-$(MARK):
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { echo "Python 3.11 or newer is needed; PYTHON=/path/to/python3 names another."; exit 2; }
	@case $* in \
	  sensor) echo "Making the environment in .venv for PROFILE=sensor: about $(if $(LIBRARY),30,120) MB are downloaded, once." ;; \
	  site)   echo "Making the environment in .venv: about 350 MB are downloaded, once."; \
	          echo "For less: make run PROFILE=sensor (no SQL history, about 120 MB)." ;; \
	  dev)    echo "Making the environment for tests and checks in .venv: at most 400 MB are downloaded, once." ;; \
	  core)   echo "Making the environment in .venv for PROFILE=core: about 170 MB are downloaded, once." ;; \
	  *)      echo "PROFILE=$* is unknown: sensor, site or core."; exit 2 ;; \
	esac
	@# A checkout that was moved needs a new environment: its scripts name the old folder.
	@[ -x $(PY) ] && [ "$$(cat .venv/.place 2>/dev/null || pwd -P)" = "$$(pwd -P)" ] \
	  || $(PYTHON) -m venv --clear .venv || { echo "python3-venv is missing: apt install python3-venv"; exit 2; }
	@pwd -P >.venv/.place
	@$(PIP) --editable '.$(EXTRAS-$*)' \
	  || { echo "The packages could not be installed; see the lines above. Nothing was started."; exit 1; }
	@rm -f .venv/.made-$*-* && touch $@

setup: $(RUNS)
	@$(PY) -m tocsin warm

setup-dev: $(TESTS)

library: $(RUNS)
	@$(PY) -c 'import numba' 2>/dev/null || { echo "numba is needed where the library is built: make library PROFILE=site"; exit 2; }
	@$(PY) -m tocsin warm --ahead-of-time

run: $(RUNS)
	@$(PY) -m tocsin demo $(if $(FOR),--for $(FOR)) $(if $(SEED),--seed $(SEED)) --profile $(PROFILE)

check: $(TESTS)
	.venv/bin/ruff format --check .
	.venv/bin/ruff check .
	.venv/bin/mypy
	.venv/bin/lint-imports

test: plan $(TESTS)
	@deploy/test.sh

# Hours; PARTS="kills seeds": these alone. What was stopped goes on; AGAIN=1: what passed runs, too.
test-deep: plan-deep $(TESTS)
	@DEEP=1 deploy/test.sh --packages
	@$(PY) deploy/deep.py $(if $(AGAIN),--again) $(PARTS)

plan-deep:
	@$(PYTHON) deploy/deep.py --plan $(if $(AGAIN),--again) $(PARTS)

plan:
	@deploy/test.sh --plan

perf: $(TESTS)
	@for part in perf/[a-z]*.py; do $(PY) $$part || exit 1; done

clean:
	rm -rf .venv .cache
