# Every target does its own set-up, in .venv. Another interpreter: make test PYTHON=python3.12
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
INSTALL := $(BIN)/python -m pip install --quiet \
  -c constraints.txt -c deploy/docker/constraints.txt
READY := $(VENV)/.ready
ENGINES := $(VENV)/.engines

export PIP_DISABLE_PIP_VERSION_CHECK := 1

.DEFAULT_GOAL := help
.PHONY: help demo up down test notebooks lint clean

help:
	@echo 'make demo   write an encrypted dataset from a real cluster to a real S3 server'
	@echo 'make up     S3, a cluster and notebooks on this machine, by TLS alone; make down ends them'
	@echo 'make test   run the tests'
	@echo 'make notebooks   execute the notebooks and store their outputs'
	@echo 'make lint   check style, types and the layers of imports'
	@echo 'make clean  remove what these have made'

demo: $(READY)
	@$(BIN)/python -m deploy.local.demo

up down: $(READY)
	@$(BIN)/python -m deploy.local $@

# Two at a time: most tests wait, for a server, a worker or a clock.
test: $(ENGINES)
	@.ci/system-packages
	$(BIN)/python -m pytest --numprocesses 2 --dist worksteal

notebooks: $(READY)
	$(BIN)/python -m notebooks

lint: $(READY)
	$(BIN)/ruff check
	$(BIN)/ruff format --check
	$(BIN)/mypy
	$(BIN)/lint-imports --no-cache

clean:
	rm -rf $(VENV) .venv-lowest build dist htmlcov .coverage .hypothesis \
	  .import_linter_cache .mypy_cache .pytest_cache .ruff_cache
	find . -name __pycache__ -type d -prune -exec rm -rf {} +

$(READY): pyproject.toml constraints.txt deploy/docker/constraints.txt
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and \
	  "Python 3.11 or newer is needed, this is " + sys.version + "; make ... PYTHON=python3.11")'
	@echo 'Setting up $(VENV) (once; a minute or two)'
	@$(PYTHON) -m venv --clear $(VENV)
	@$(INSTALL) -e '.[test,dev]'
	@touch $@

# The engines that the benchmarks compare with: only the tests need all of them.
$(ENGINES): $(READY)
	@echo 'Adding Spark, Ray and delta-rs to $(VENV) (once; a minute or two)'
	@$(INSTALL) -e '.[bench]'
	@touch $@
