# `make run` and `make test` need Python 3.11 or newer and make; everything else is installed into .venv.
# ARGS adds to a command: make run ARGS="federation.rounds=5 seed=1", make test ARGS="-k metis".
# FLWR chooses another version of Flower: make test FLWR=1.42.

ifndef PYTHON
PYTHON := $(shell for python in python3.11 python3; do \
	"$$python" -c '' 2>/dev/null && { echo "$$python"; exit; }; done; echo python3)
endif
# The version of Flower that runs and tests are made with; each further one gets an environment of its own.
FLWR ?= 1.41
VENV := .venv$(if $(filter 1.41,$(FLWR)),,-flwr-$(FLWR))
BIN := $(VENV)/bin
ARGS ?=
# The versions of constraints.txt; another version of Flower needs others, so that PyTorch's alone is kept with it.
PINNED := $(if $(filter 1.41,$(FLWR)),cat,grep '^torch==') constraints.txt
INSTALL := $(PINNED) > $(VENV)/constraints.txt && $(BIN)/python -m pip install -qq --disable-pip-version-check \
	--constraint $(VENV)/constraints.txt 'flwr==$(FLWR).*'

.DELETE_ON_ERROR:
.DEFAULT_GOAL := help
.PHONY: help run test lint clean

help:
	@echo "make run    train FED-PUB on 10 federated subgraphs with flwr run, then print the table and the plots' paths"
	@echo "make test   the test suite; COVERAGE=1 measures the coverage, FLWR=1.42 takes another version of Flower"
	@echo "make lint   ruff and mypy"
	@echo "make clean  remove .venv and every cache; results in outputs/ stay"

# exec: a signal to make reaches the command itself, not a shell that would leave it alone.
run: $(VENV)/.installed
	@exec $(BIN)/subfl launch method=fedpub dataset=digits partition=metis partition.clients=10 --supernodes 10 $(ARGS)

# Two at a time: the tests of the real federation mostly wait. COVERAGE=1 prints the coverage, too.
test: $(VENV)/.installed-dev
	@exec $(BIN)/pytest -n 2 --dist loadfile --no-loadscope-reorder --durations=15 \
		$(if $(COVERAGE),--cov=subfl_flower --cov-report=term:skip-covered) $(ARGS)

lint: $(VENV)/.installed-dev
	@$(BIN)/ruff check .
	@$(BIN)/ruff format --check .
	@$(BIN)/mypy

clean:
	rm -rf .venv .venv-flwr-* .flwr build dist .pytest_cache .mypy_cache .ruff_cache .hypothesis
	find . -name __pycache__ -type d -prune -exec rm -rf {} +

$(BIN)/python:
	@"$(PYTHON)" -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { \
		echo "Python 3.11 or newer is needed, '$(PYTHON)' is not: make PYTHON=/path/to/python3.11" >&2; exit 1; }
	@"$(PYTHON)" -m venv $(VENV) || { rm -rf $(VENV); \
		echo "no virtual environment: does '$(PYTHON)' lack its venv module (Debian: python3-venv)?" >&2; exit 1; }

# The stamps are older than pyproject.toml or constraints.txt when these have changed, and missing when an installation failed.
$(VENV)/.installed: pyproject.toml constraints.txt | $(BIN)/python
	@echo "installing into $(VENV); PyTorch is large, the first time takes minutes"
	@$(INSTALL) -e '.[dp,douban,gcfl,metrics,parquet,plots]'
	@touch $@

$(VENV)/.installed-dev: pyproject.toml constraints.txt | $(BIN)/python
	@echo "installing into $(VENV); PyTorch is large, the first time takes minutes"
	@$(INSTALL) -e '.[dev]'
	@touch $(VENV)/.installed $@
