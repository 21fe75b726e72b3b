# Everything a newcomer needs. GNU make and a POSIX shell; no compiler, no GPU.

# The interpreter that .venv is made with: make demo PYTHON=python3.12
PYTHON ?= python3
# More arguments for pip. PyPI's torch for Linux brings gigabytes of CUDA libraries; to do without:
#   make demo PIP_ARGS="--extra-index-url https://download.pytorch.org/whl/cpu"
PIP_ARGS ?=
# make demo FRESH=1 starts over; otherwise the demo goes on from what runs/demo holds.
FRESH ?=
# make fuzz tries so many damaged files, or for so many seconds, whichever takes longer.
FUZZ_INPUTS ?= 100000
FUZZ_SECONDS ?=

BIN := .venv/bin
# One file after the other goes to whichever process is free, so that what a file makes is made once.
WORKERS := --numprocesses 2 --dist loadfile --no-loadscope-reorder
PIP := $(BIN)/python -m pip -qq --disable-pip-version-check

.DEFAULT_GOAL := help
.NOTPARALLEL:
.PHONY: help demo test fuzz soak test-processors docs lint check

help: ## list these targets
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "make %-15s %s\n", $$1, $$2 }' Makefile

demo: .venv/ready ## collect, train, forecast, evaluate; writes runs/demo/report.html (FRESH=1 starts over)
	$(BIN)/tipl demo --out runs/demo$(if $(filter-out 0,$(FRESH)), --fresh)

test: .venv/ready ## run the tests, in two processes
	OMP_NUM_THREADS=1 PYTHONDONTWRITEBYTECODE= $(BIN)/python -m pytest $(WORKERS)

fuzz: .venv/ready ## damage FUZZ_INPUTS (100000) files, others each time: is every one read, or refused?
	OMP_NUM_THREADS=1 FUZZ_INPUTS='$(FUZZ_INPUTS)' FUZZ_SECONDS='$(FUZZ_SECONDS)' FUZZ_STEPS=5000 \
		$(BIN)/python -m pytest -o addopts=--quiet tests/test_fuzz.py tests/test_dataset_machine.py

soak: .venv/ready ## do everything again and again for SOAK_SECONDS (3600): does memory grow?
	$(BIN)/python benchmarks/soak.py --seconds $(or $(SOAK_SECONDS),3600)

test-processors: .venv/ready ## run the numerical tests as on other processors
	$(BIN)/python scripts/other_processors.py

docs: .venv/ready ## build the site of the documentation into build/site
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --strict

lint: .venv/ready ## check style, formatting and types
	$(BIN)/ruff check
	$(BIN)/ruff format --check
	$(BIN)/mypy

check: lint test ## all that a change has to pass: lint and test

# Touched last, so that an interrupted installation is taken up again.
.venv/ready: pyproject.toml requirements.lock
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { \
		echo 'tipl needs Python 3.11 or newer, and "$(PYTHON)" is not one.' \
			'Name one that is: make PYTHON=python3.12 $(MAKECMDGOALS)' >&2; exit 1; }
	@echo 'Setting up .venv from requirements.lock; the first time this downloads for some minutes.'
	@$(PYTHON) -m venv .venv
	@$(PIP) install --requirement requirements.lock $(PIP_ARGS)
	@$(PIP) install --no-deps --editable . $(PIP_ARGS)
	@$(BIN)/python -m pip check
	@touch $@
