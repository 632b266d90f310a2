# `make demo` and `make test` set up everything they need: Python 3.11+ and make are enough.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.installed
# The oldest FastAPI and Flask that are supported find routes differently: a second environment runs the same contract.
OLD_VENV := .venv-oldest
OLD_STAMP := $(OLD_VENV)/.installed

.DEFAULT_GOAL := help
.PHONY: help demo demo-flask test bench lint types floors format settings clean

help:  ## this list
	@sed -n 's/^\([a-z-]*\):.*## /\1\t/p' $(MAKEFILE_LIST) | expand -t 14

$(STAMP): requirements/dev.txt pyproject.toml
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --upgrade "pip>=24"
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -r requirements/dev.txt
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --no-deps --no-build-isolation --editable .
	@touch $@

$(OLD_STAMP): requirements/oldest.txt pyproject.toml
	$(PYTHON) -m venv $(OLD_VENV)
	$(OLD_VENV)/bin/python -m pip install --quiet --disable-pip-version-check --upgrade "pip>=24"
	$(OLD_VENV)/bin/python -m pip install --quiet --disable-pip-version-check -r requirements/oldest.txt
	@touch $@

demo: $(STAMP)  ## the shielded FastAPI portal under uvicorn, with real exchanges
	$(BIN)/python examples/fastapi_app/demo.py

demo-flask: $(STAMP)  ## the shielded Flask portal, the same exchanges
	$(BIN)/python examples/flask_app/demo.py

test: $(STAMP) $(OLD_STAMP)  ## all tests, with a browser where there is one, and the contract on the oldest FastAPI and Flask
	$(BIN)/python -m pytest -n 2
	PYTHONPATH=src $(OLD_VENV)/bin/python -m pytest -n 2 tests/contract

bench: $(STAMP)  ## what the shield costs, as ratios against CORSMiddleware and flask-cors
	$(BIN)/python benchmarks/run.py

lint: $(STAMP)  ## ruff: rules and format
	$(BIN)/ruff check src tests examples benchmarks docs
	$(BIN)/ruff format --check src tests examples benchmarks docs

types: $(STAMP)  ## mypy, strict; both examples have a package called portal, so each is looked at by itself
	$(BIN)/mypy src examples/*.py
	cd examples/fastapi_app && MYPYPATH=..:../../src ../../$(BIN)/mypy --config-file ../../pyproject.toml .
	cd examples/flask_app && MYPYPATH=..:../../src ../../$(BIN)/mypy --config-file ../../pyproject.toml .

floors: $(STAMP)  ## the import contracts
	$(BIN)/lint-imports --no-logo

format: $(STAMP)  ## ruff format
	$(BIN)/ruff check --fix src tests examples benchmarks docs
	$(BIN)/ruff format src tests examples benchmarks docs

settings: $(STAMP)  ## docs/settings.md from the config models
	$(BIN)/python docs/settings_page.py > docs/settings.md

clean:  ## everything that was made here
	rm -rf $(VENV) $(OLD_VENV) .pytest_cache .mypy_cache .ruff_cache .hypothesis .import_linter_cache
