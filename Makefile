# make demo | make test | make lint | make bench
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
PIP := $(BIN)/python -m pip --disable-pip-version-check --quiet
PACKAGES := -p imbcil.harness -p imbcil.protocols -p imbcil.methods -p imbcil.baselines -p imbcil.reports
export PIP_ROOT_USER_ACTION := ignore

.PHONY: demo test lint bench

demo: $(VENV)/.installed  ## the main job on embedded data; at its end the table and how to open the dashboard
	$(BIN)/imbcil-bench run --protocol lfs --n-tasks 10

test: $(VENV)/.installed-dev build/wheel.done  ## every check and test; the last line is pytest's
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/lint-imports --no-logo
	@echo "--- types, on the installed wheel"
	cd build/installed && ../../$(BIN)/mypy --config-file ../../pyproject.toml --cache-dir ../../.mypy_cache $(PACKAGES)
	@echo "--- the wheel without torch and mlflow, from an empty folder"
	rm -rf build/clean build/empty && mkdir -p build/empty
	$(BIN)/python -m venv --without-pip build/clean
	$(PIP) --python build/clean/bin/python install --constraint constraints.txt click pydantic pyyaml rich
	$(PIP) --python build/clean/bin/python install --no-deps build/wheel/*.whl
	cd build/empty && ../clean/bin/imbcil-bench --help >/dev/null && ../clean/bin/imbcil-bench list
	@echo "--- tests"
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n auto --cov --cov-report=term

lint: $(VENV)/.installed-dev
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/lint-imports --no-logo

bench: $(VENV)/.installed
	for file in benchmarks/[!_]*.py; do echo "--- $$file"; $(BIN)/python $$file || exit 1; done

$(VENV)/bin/python:
	$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "imbcil-bench needs Python 3.11 or newer: make PYTHON=python3.12 ...")'
	$(PYTHON) -m venv $(VENV)

$(VENV)/.installed: pyproject.toml constraints.txt | $(VENV)/bin/python
	$(PIP) install --constraint constraints.txt --editable .
	touch $@

$(VENV)/.installed-dev: pyproject.toml constraints.txt | $(VENV)/bin/python
	$(PIP) install --constraint constraints.txt --editable ".[dev]"
	touch $@ $(VENV)/.installed

# Built anew when a source changed; from an empty build folder, because setuptools would pack what an older build left.
build/wheel.done: $(VENV)/.installed-dev $(shell find harness protocols methods baselines reports -type f ! -name '*.pyc')
	rm -rf build
	$(PIP) wheel --no-deps --wheel-dir build/wheel .
	$(PIP) install --no-deps --target build/installed build/wheel/*.whl
	touch $@
