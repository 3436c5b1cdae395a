# `make demo` and `make test` need nothing but Python 3.11 or newer: they make their own environment and install the tested
# versions.
PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin

.PHONY: test demo install lint check clean

test: install lint check

demo: $(BIN)/longvu
	$(BIN)/longvu demo

# Where there is no environment yet; one that is there, `make test`'s for instance, is used as it is.
$(BIN)/longvu:
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --upgrade pip
	$(BIN)/python -m pip install --quiet --constraint constraints.txt --editable .

install:
	rm -rf $(VENV)
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --upgrade pip
	$(BIN)/python -m pip install --quiet --constraint constraints.txt --editable '.[dev]'

lint:
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

# A process per core, each with one thread for its arithmetic.
check: export OMP_NUM_THREADS := 1
check:
	$(BIN)/python -m pytest -n auto --dist worksteal

clean:
	rm -rf $(VENV) dist build .mypy_cache .ruff_cache .pytest_cache
