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

.PHONY: demo test test-fast test-engines fuzz constraints docs man licences pictures sbom clean

$(BIN)/python:
	$(PYTHON) -m venv $(VENV)

$(VENV)/light.done: pyproject.toml | $(BIN)/python
	$(BIN)/python -m pip install --quiet -e '.[demo,web]'
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
	$(BIN)/codespell README.md CONTRIBUTING.md CHANGELOG.md SECURITY.md docs indexes examples benchmarks training vitsearch
	$(PYTEST) -m "not engines"

test-fast: $(VENV)/full.done
	$(PYTEST) --fast

# clusters of Ray, a real Milvus server, and all measurements on a GPU, here on the CPU
test-engines: $(VENV)/full.done
	$(PYTEST) -m engines

# hostile files, queries and requests for every reader: tens of minutes (docs/security.md)
fuzz: $(VENV)/full.done
	PYTHONPATH=.:tests nice -n 10 $(BIN)/python -m fuzzing --cases $(CASES) --seed $(SEED)

# what the tests ran with, for `pip install -c constraints.txt`
constraints: $(VENV)/full.done
	echo "# What the tests run with on Linux with Python 3.11, by \`make constraints\`" > constraints.txt
	$(BIN)/python -m pip freeze --all --exclude pip --exclude-editable >> constraints.txt

# manual pages, from the help
man: $(VENV)/light.done
	$(BIN)/python -m pip install --quiet click-man
	mkdir -p build/man
	$(BIN)/click-man vitsearch --target build/man

# the page of the Python API, from the docstrings
docs: $(VENV)/full.done
	$(BIN)/python .ci/python_api.py

# the pictures of the page in docs/web.md
pictures: $(VENV)/full.done
	PYTHONPATH=tests $(BIN)/python .ci/screenshots.py

licences: $(VENV)/full.done
	$(BIN)/python .ci/licences.py

# a bill of materials (CycloneDX) of what is installed here
sbom: $(VENV)/full.done
	$(BIN)/python -m pip install --quiet cyclonedx-bom
	$(BIN)/cyclonedx-py environment --pyproject pyproject.toml $(BIN)/python -o sbom.json

clean:
	rm -rf $(VENV) demo build dist sbom.json
