# All of these need nothing but Python 3.11 or newer: each makes its own environment in .venv
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
PHOTOS ?=
# how many processes run the tests; the tests of a file stay in one (tests/conftest.py)
WORKERS ?= 2
# of `make fuzz`: how many, and which; the same seed gives the same ones
CASES ?= 22000
SEED ?= 0
PYTEST := $(BIN)/python -m pytest -n $(WORKERS) --no-loadscope-reorder
# the tests start many processes, which start several times faster with compiled modules
unexport PYTHONDONTWRITEBYTECODE

.PHONY: demo test test-fast fuzz clean

$(BIN)/python:
	$(PYTHON) -m venv $(VENV)

$(VENV)/light.done: pyproject.toml | $(BIN)/python
	$(BIN)/python -m pip install --quiet -e '.[demo]'
	touch $@

$(VENV)/full.done: pyproject.toml | $(BIN)/python
	$(BIN)/python -m pip install --quiet -e '.[all,dev]'
	touch $@

demo: $(VENV)/light.done
	$(BIN)/vitsearch demo $(if $(PHOTOS),"$(PHOTOS)")

test: $(VENV)/full.done
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(PYTEST)

test-fast: $(VENV)/full.done
	$(PYTEST) -m "not slow and not gpu"

# hostile files, queries and requests for every reader: tens of minutes (docs/security.md)
fuzz: $(VENV)/full.done
	PYTHONPATH=.:tests nice -n 10 $(BIN)/python -m fuzzing --cases $(CASES) --seed $(SEED)

clean:
	rm -rf $(VENV) demo build dist
