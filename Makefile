# Everything starts here: `make help`. Needs make and Python >= 3.11; what else it takes goes into .venv.

PYTHON ?= python3
BUDGET ?= cpu

.DEFAULT_GOAL := help
.DELETE_ON_ERROR:
.PHONY: help demo test check lint types fast-tests format bench reproduce-fig4 reproduce-list reproduce-all methods replication catalogue docs notebooks release-check lock clean

# Nothing of the caller's own environment reaches the one built here.
unexport PYTHONPATH PYTHONHOME VIRTUAL_ENV CONDA_PREFIX UV_PYTHON UV_SYSTEM_PYTHON UV_PROJECT_ENVIRONMENT \
         PIP_TARGET PIP_PREFIX PIP_USER PIP_REQUIRE_VIRTUALENV PYTHONDONTWRITEBYTECODE

PY := .venv/bin/python
UV := .venv/bin/uv
READY := .venv/.ready

# PyPI's torch for Linux brings CUDA. CPU=1 takes torch and torchvision of the same versions from PyTorch's CPU index, whose
# files have other hashes than the lock's, and all else by its hash.
SYNC := $(UV) pip sync --quiet --require-hashes --compile-bytecode --python $(PY)
OF_CUDA := ^(torch|torchvision|triton|nvidia-[a-z0-9-]*|cuda-[a-z0-9-]*)==
ifdef CPU
SIZE := about 2 GB, without CUDA
INSTALL = awk '/^[^ ]/ { wanted = !/$(OF_CUDA)/ } wanted' requirements.lock > .venv/cpu.txt && $(SYNC) .venv/cpu.txt && \
    { $(UV) pip install --quiet --compile-bytecode --python $(PY) --torch-backend cpu --no-deps \
        $$(awk '/^torch(vision)?==/ { print $$1 }' requirements.lock) || \
      { echo "there is no CPU build of torch at this package index: leave CPU=1 out"; exit 1; }; }
else
SIZE := 6.6 GB, most of it CUDA for PyTorch; 'make $(MAKECMDGOALS) CPU=1' takes a third of that, where the index has PyTorch for CPUs
INSTALL = $(SYNC) requirements.lock
endif

help:  ## list every target
	@awk -F ':.*## ' '/^[a-zA-Z0-9_.%-]+:.*## / {printf "  make %-15s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

.venv: $(READY)  ## install flowexp and exactly the packages of requirements.lock

$(READY): requirements.lock pyproject.toml
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
	    { echo "flowexp needs Python >= 3.11, and '$(PYTHON)' is not: make $(MAKECMDGOALS) PYTHON=/path/to/python3.11"; exit 1; }
	@$(PYTHON) -c 'import ensurepip' 2>/dev/null || \
	    { echo "'$(PYTHON)' cannot make virtual environments: install the package python3-venv, or give another PYTHON=..."; exit 1; }
	$(PY) -m pip --version >/dev/null 2>&1 || $(PYTHON) -m venv --clear .venv
	@awk '/^[^ ]/ { listed = /^uv==/ } listed' requirements.lock > .venv/uv.txt
	@$(PY) -m pip install --quiet --disable-pip-version-check --require-hashes --requirement .venv/uv.txt
	@echo "installing into .venv: $(SIZE)"
	@$(INSTALL)
	@$(UV) pip install --quiet --python $(PY) --no-deps --no-build-isolation --editable .
	@touch $@

demo: $(READY)  ## train FM, LCF and MAFM on real digits, and show them side by side: under four minutes (CPU=1: torch without CUDA)
	@$(PY) -m flowexp demo

test: $(READY)  ## run every test
	$(PY) -m pytest -n auto --maxprocesses 4 --dist loadgroup

check: $(READY)  ## lint, types and fast-tests side by side: under a minute
	$(MAKE) --no-print-directory --jobs 2 lint types fast-tests

lint: $(READY)  ## style, format and the direction of imports
	$(PY) -m ruff check .
	$(PY) -m ruff format --check .
	.venv/bin/lint-imports --no-logo

types: $(READY)  ## types, by mypy
	$(PY) -m mypy

fast-tests: $(READY)  ## the tests that are not marked slow
	$(PY) -m pytest -q -n auto --maxprocesses 4 --dist worksteal -m "not slow"

format: $(READY)  ## sort imports and format the code in place
	$(PY) -m ruff check --fix .
	$(PY) -m ruff format .

bench: $(READY)  ## measure speed side by side, into docs/results/benchmarks.md (BUDGET=smoke, cpu or gpu; CASES=solver,probe; BUDGET=gpu DEVICE=cpu: a miniature)
	$(PY) -m benchmarks budget=$(BUDGET) $(CASES:%=cases=%) $(DEVICE:%=device=%) $(PEAK:%=peak=%)

reproduce-fig4: reproduce-lcf-fig4  ## LCF's Figure 4, probe accuracy over the noise level (BUDGET=cpu, SEEDS=3, MINUTES=20)

reproduce-list: $(READY)  ## every figure and table of both papers, with its budgets, their cost, and what is made
	$(PY) -m flowexp.reproduce list

reproduce-all: $(READY)  ## all of them at one budget (BUDGET=smoke takes five minutes)
	$(PY) -m flowexp.reproduce all budget=$(BUDGET) $(SEEDS:%=seeds=%)

reproduce-%: $(READY)  ## one of them: make reproduce-lcf-fig9, reproduce-vd-fig3, reproduce-vd-table11
	$(PY) -m flowexp.reproduce $* budget=$(BUDGET) $(SEEDS:%=seeds=%) $(MINUTES:%=minutes=%)

methods: $(READY)  ## train every method of both papers for a short while, and put them side by side (BUDGET=cpu or gpu; smoke takes one of each kind)
	$(PY) -m flowexp.reproduce methods budget=$(BUDGET)

replication: $(READY)  ## write docs/replication.md from the results of recipes: each claim of both papers with its verdict
	$(PY) -m experiments.replication

catalogue: $(READY)  ## write docs/experiments.md, the list of all experiments with their cost
	$(PY) -m experiments.catalogue

docs: $(READY)  ## build the site into build/site, open build/site/index.html; a warning or a dead link is an error
	$(PY) -m tools.site

notebooks: $(READY)  ## write docs/notebooks as .ipynb files into build/notebooks
	@mkdir -p build/notebooks
	@for notebook in docs/notebooks/*.py; do \
	    $(PY) -m jupytext --quiet --output "build/notebooks/$$(basename "$$notebook" .py).ipynb" "$$notebook" || exit 1; \
	done
	@echo "the notebooks: build/notebooks"

release-check: $(READY)  ## build sdist and wheel into dist/ and check both; publishes nothing
	$(PY) -m tools.release

lock: $(READY)  ## choose the newest versions that pyproject.toml allows and write requirements.lock
	$(UV) pip compile --quiet --upgrade --universal --python-version 3.11 --extra dev --no-emit-index-url --no-annotate --generate-hashes \
	    --custom-compile-command "make lock" --output-file requirements.lock pyproject.toml

clean:  ## remove .venv, caches and built wheels (runs and data stay)
	rm -rf .venv build dist .mypy_cache .pytest_cache .ruff_cache .import_linter_cache
	find . -name __pycache__ -type d -prune -exec rm -rf {} +
