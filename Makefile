# The house's front door. `make train` on a machine with git, make and Python >= 3.11 sets everything up first.
#
#   VENV    where the environment lives: .venv, or the active conda environment made from environment.yml
#   PYTHON  the interpreter that creates it; without it, the first usable one of python3, python3.13, ... is taken
#   ARGS    overrides for train.py, for example  make train ARGS="seed=1 max_steps_per_stage=20"
#   JOBS    processes of the test run

# torch is pinned here and not hashed in requirements.lock: its build depends on the machine. It is installed first,
# so that no other package's range makes pip fetch a newer build.
TORCH := 2.13.0

# Extras that the tests exercise, so the lock holds them.
TESTED := video fast evaluation demo curation slurm

VENV ?= $(if $(filter internvl-lab,$(CONDA_DEFAULT_ENV)),$(CONDA_PREFIX),.venv)
ARGS ?=
JOBS ?= 2
BIN := $(VENV)/bin
READY := $(VENV)/.ready
PIP := $(BIN)/python -m pip --disable-pip-version-check

# One thread a process, and nothing that would reach for a network.
TEST_ENV := OMP_NUM_THREADS=1 MKL_NUM_THREADS=1 TOKENIZERS_PARALLELISM=false HF_HUB_OFFLINE=1 WANDB_MODE=offline
PYTEST := $(TEST_ENV) $(BIN)/python -m pytest -n $(JOBS) --dist worksteal

.DEFAULT_GOAL := help
.PHONY: help setup train test test-slow pytest lint format notebooks bench bench-gpu lock clean distclean

help:  ## list the targets
	@awk -F ':.*## ' '/^[a-z-]+:.*## / {printf "  make %-11s %s\n", $$1, $$2}' Makefile

setup: $(READY)  ## create the environment (idempotent; the other targets call it)
	@echo "internvl-lab: the environment in $(VENV) is ready"

# Without a stamp the environment is unfinished (an interrupted setup) and is made anew. With an old stamp it is updated
# in place; the stamp goes first, so that an interrupted update counts as unfinished as well.
$(READY): requirements.lock pyproject.toml
	@set -e; \
	if [ -d "$(VENV)/conda-meta" ] || { [ -e "$@" ] && "$(BIN)/python" -m pip --version >/dev/null 2>&1; }; then \
	  rm -f "$@"; \
	else \
	  found=""; \
	  for python in $(if $(PYTHON),"$(PYTHON)",python3 python3.13 python3.12 python3.11 python); do \
	    if "$$python" -c 'import sys, venv, ensurepip; sys.exit(sys.version_info < (3, 11))' >/dev/null 2>&1; then \
	      found="$$python"; break; \
	    fi; \
	  done; \
	  if [ -z "$$found" ]; then \
	    echo "internvl-lab needs Python 3.11 or newer with its venv module$(if $(PYTHON), and $(PYTHON) is none): install" \
	      "it, or name it with 'make setup PYTHON=/path/to/python3'." >&2; \
	    exit 1; \
	  fi; \
	  echo "internvl-lab: creating $(VENV) with $$found"; \
	  "$$found" -m venv --clear "$(VENV)"; \
	fi
	@# The CPU build where there is no NVIDIA driver and pip's own configuration offers one; else what the index gives.
	@echo "internvl-lab: installing torch $(TORCH)"
	@if [ "$$(uname -s)" = Linux ] && ! command -v nvidia-smi >/dev/null 2>&1 \
	  && $(PIP) install --quiet "torch==$(TORCH)+cpu" 2>/dev/null; then \
	  echo "internvl-lab: no NVIDIA driver, took the CPU build"; \
	else \
	  $(PIP) install "torch==$(TORCH)"; \
	fi
	@# The lock is complete, so pip need not resolve anything: its resolver (23.2) refused a hashed lock as soon as a newer
	@# version of a pinned package with an extra (coverage[toml]) was published.
	@echo "internvl-lab: installing requirements.lock, about a minute"
	$(PIP) install --quiet --require-hashes --no-deps -r requirements.lock
	$(PIP) install --quiet --no-deps --no-build-isolation -e .
	@touch "$@"

train: $(READY)  ## train the small InternVL 2.5 through all its stages and write the report
	$(BIN)/python train.py $(ARGS)

lint: $(READY)  ## style, format, types and import layers
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports

format: $(READY)  ## let ruff fix what it can
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

pytest: $(READY)  ## the default tests with coverage, without lint
	$(PYTEST) --cov --cov-fail-under=90

test: lint pytest  ## everything that must hold: lint, types, layers, default tests, coverage

test-slow: $(READY)  ## kill tests, studies, notebooks and whatever else takes long
	$(PYTEST) -m slow

notebooks: $(READY)  ## execute every notebook (INPLACE=--inplace keeps the new outputs)
	$(TEST_ENV) $(BIN)/jupyter execute $(INPLACE) --timeout=1200 notebooks/*.ipynb

bench: $(READY)  ## measure a training step, the loss head and packed attention against their peers
	$(BIN)/python -m internvl_lab bench step --compile
	$(BIN)/python -m internvl_lab bench head
	$(BIN)/python -m internvl_lab bench attention

bench-gpu: $(READY)  ## the training step of 1B, 2B and 8B against its peers on one GPU
	for size in 1b 2b 8b; do \
	  $(BIN)/python -m internvl_lab bench step --device cuda --size $$size --compile --json outputs/bench/$$size.json || exit 1; \
	done

# The lock holds for Linux and macOS and every Python from 3.11 on; torch and what only its CUDA build needs are left out.
lock:  ## add to requirements.lock what pyproject.toml asks for (needs uv; ARGS=--upgrade renews all)
	@command -v uv >/dev/null 2>&1 || { echo "make lock needs uv: install it with pip or pipx." >&2; exit 1; }
	@set -e; trap 'rm -f .lock.in .lock.out' EXIT; \
	echo "torch==$(TORCH)" > .lock.in; \
	cp requirements.lock .lock.out; \
	uv pip compile pyproject.toml --extra joblib --extra notebooks --extra dev $(TESTED:%=--extra %) --constraint .lock.in --universal \
	  --python-version 3.11 --fork-strategy fewest --generate-hashes --no-header --quiet --output-file .lock.out $(ARGS); \
	{ echo "# The environment of internvl-lab, pinned and hashed; made by 'make lock', installed by 'make setup'."; \
	  echo "# Before it comes, outside the hashes because its build depends on the machine:"; \
	  echo "# torch==$(TORCH)"; \
	  awk '/^[a-z0-9]/ {keep = !/^(torch==|triton==|nvidia-|cuda-)|== .(win32|emscripten|pypy)/} keep' .lock.out; \
	} > requirements.lock

clean:  ## remove caches and build leftovers; runs, data and the environment stay
	rm -rf .pytest_cache .mypy_cache .ruff_cache .import_linter_cache .hypothesis .coverage .coverage.* htmlcov build dist src/*.egg-info
	find src tests conf notebooks -name __pycache__ -type d -prune -exec rm -rf {} +
	find notebooks -name .ipynb_checkpoints -type d -prune -exec rm -rf {} +

distclean: clean  ## also remove the environment (not outputs/: runs are yours)
	rm -rf .venv
