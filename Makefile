# make venv      makes .venv with everything in it
# make compare   all set-up, then DiffTORI, TD-MPC and SAC on cartpole-swingup: figure, films, report
# make test      all set-up, then linter, type checker, documentation site, tests with coverage, core tests with numpy 2
# make docs      all set-up, then the documentation site, in build/site
# make bench     all set-up, then the speed tables of benchmarks/
# make clean     removes what the others made, results/ excepted

VENV ?= .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.complete
# A second, small environment: the core alone, with a current numpy 2. ManiSkill's planner holds the first one at 1.
NUMPY2 := $(VENV)-numpy2
NUMPY2_TESTS ?= tests/trajopt tests/models tests/rl tests/exports tests/wrappers tests/il/learners tests/il/formats

# The default comparison; every part can be replaced: make compare METHODS="difftori sac" SEEDS=0
METHODS ?= difftori tdmpc sac
TASKS ?= dm_control/cartpole-swingup
SEEDS ?= 0 1
FRAMES ?= 30000
OBS ?= state
JOBS ?= 2
OUT ?= results/demo
COMPARE_ARGS ?= --eval-freq 7500 --eval-episodes 3

TEST_JOBS ?= 2
TEST_ARGS ?=
# The share of statements of the package that tests run; nothing measures processes they start. COVERAGE= leaves it out.
COVERAGE ?= --cov=difftori_gym --cov=wrappers --cov=baselines --cov-report=term:skip-covered $(if $(TEST_ARGS),,--cov-fail-under=90)

# uv has its own names for pip's settings: pass them on, so that a local folder of wheels (a CPU
# build of torch, for instance) is used by both.
comma := ,
space := $(subst ,, )
ifneq ($(strip $(PIP_FIND_LINKS)),)
export UV_FIND_LINKS ?= $(subst $(space),$(comma),$(strip $(PIP_FIND_LINKS)))
endif
ifneq ($(strip $(PIP_INDEX_URL)),)
export UV_DEFAULT_INDEX ?= $(PIP_INDEX_URL)
endif
ifneq ($(strip $(PIP_CERT)),)
export SSL_CERT_FILE ?= $(PIP_CERT)
endif
export UV_HTTP_TIMEOUT ?= 180
UV = $(BIN)/uv pip install --quiet --python $(BIN)/python -c constraints.txt

# The first interpreter that the pinned packages have wheels for; PYTHON=... chooses another.
SUITABLE = import sys, ensurepip, venv; sys.exit(not (3, 10) <= sys.version_info[:2] <= (3, 12))
PYTHON ?= $(shell for p in python3 python3.12 python3.11 python3.10 python; do \
	"$$p" -c '$(SUITABLE)' >/dev/null 2>&1 && { echo "$$p"; break; }; done)

# Python 3.12 and newer can measure without a trace function, which is faster.
ifndef COVERAGE_CORE
COVERAGE_CORE := $(shell "$(PYTHON)" -c 'import sys; print("sysmon" if sys.version_info >= (3, 12) else "ctrace")' 2>/dev/null)
endif
export COVERAGE_CORE

.PHONY: help venv system browser compare test test-numpy2 lint typecheck docs bench constraints clean

help:
	@sed -n '/^# make/s/^# //p' Makefile

venv: system $(STAMP)

system:
	@sh scripts/system_packages.sh

browser:
	@sh scripts/system_packages.sh browser

# torch first: the set-up of theseus-ai imports it.
$(STAMP): pyproject.toml constraints.txt
	@"$(PYTHON)" -c '$(SUITABLE)' >/dev/null 2>&1 || { \
		echo "error: expected Python 3.10, 3.11 or 3.12 with its venv module (Debian: python3-venv), got '$(or $(PYTHON),$(shell python3 --version 2>&1))'; name one with PYTHON=/path/to/python3.12" >&2; \
		exit 1; }
	@echo "making $(VENV), a few minutes on an empty machine"
	"$(PYTHON)" -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt uv
	$(UV) torch numpy setuptools wheel
	$(UV) -e ".[all,dev,docs]"
	@touch $@

compare: venv
	OMP_NUM_THREADS=1 $(BIN)/python examples/compare.py --methods $(METHODS) --tasks $(TASKS) --seeds $(SEEDS) \
		--frames $(FRAMES) --obs $(OBS) --jobs $(JOBS) --out $(OUT) $(COMPARE_ARGS)

test: browser lint typecheck docs test-numpy2
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n $(TEST_JOBS) $(COVERAGE) $(TEST_ARGS)

# Part of the tests, when part of them is asked for, needs no second environment.
test-numpy2: $(if $(TEST_ARGS),,$(NUMPY2)/.complete)
	$(if $(TEST_ARGS),@:,OMP_NUM_THREADS=1 $(NUMPY2)/bin/python -m pytest -n $(TEST_JOBS) -q -m "not slow" $(NUMPY2_TESTS) --ignore tests/wrappers/test_snapshot.py)

$(NUMPY2)/.complete: $(STAMP)
	"$(PYTHON)" -m venv $(NUMPY2)
	sed '/^numpy==/d' constraints.txt > $(NUMPY2)/constraints.txt
	$(BIN)/uv pip install --quiet --python $(NUMPY2)/bin/python -c $(NUMPY2)/constraints.txt \
		"numpy>=2" -e ".[imitation,onnx]" hypothesis pygame pytest pytest-xdist rich tensorboard tqdm
	$(NUMPY2)/bin/python -c 'import numpy; assert numpy.__version__.startswith("2."), numpy.__version__'
	@touch $@

lint: venv
	$(BIN)/python -m ruff check .
	$(BIN)/python -m ruff format --check .

typecheck: venv
	sh scripts/typecheck.sh $(BIN)/python

# Warnings are errors (strict in mkdocs.yml).
docs: venv
	NO_MKDOCS_2_WARNING=1 $(BIN)/python -m mkdocs build

bench: venv
	@for name in solvers floor learners environments; do \
		echo "== $$name"; OMP_NUM_THREADS=1 $(BIN)/python benchmarks/$$name.py || exit 1; done

# Keeps the pins that still fit and adds or replaces the others.
constraints: venv
	sh scripts/renew_constraints.sh $(BIN)/uv $(BIN)/python

clean:
	rm -rf $(VENV) build dist *.egg-info .mypy_cache .pytest_cache .ruff_cache .hypothesis .coverage
	find . -name __pycache__ -type d -not -path './.git/*' -prune -exec rm -rf {} +
