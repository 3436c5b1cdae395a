# `make test` needs nothing but Python 3.11 or newer: it makes its own environment and installs the tested versions.
PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin

.PHONY: test install lint check clean

test: install lint check

install:
	rm -rf $(VENV)
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --upgrade pip
	$(BIN)/python -m pip install --quiet --constraint constraints.txt --editable '.[dev]'

lint:
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

check:
	$(BIN)/python -m pytest

clean:
	rm -rf $(VENV) dist build .mypy_cache .ruff_cache .pytest_cache
