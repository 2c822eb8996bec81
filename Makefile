# make train and make test do everything on a fresh machine with Python 3.11 or later; make alone lists the rest.
PYTHON ?= python3
VENV := .venv
ARGS =

BIN := $(VENV)/bin
export PIP_DISABLE_PIP_VERSION_CHECK = 1

.PHONY: help train test ui lint types format

help:  ## what can be made
	@awk -F ':.*## ' '/^[a-z]+:.*## / {printf "make %-8s %s\n", $$1, $$2}' Makefile

train: $(VENV)/installed  ## train on the embedded data; more with ARGS="model=resnet50 finetune=true"
	@$(BIN)/python -m cxrnet.train $(or $(ARGS),experiment=demo)

test: $(VENV)/installed-test  ## run the tests, but for the slow ones; those with ARGS="-m slow"
	@OMP_NUM_THREADS=1 $(BIN)/python -m pytest --numprocesses auto --dist loadfile --no-loadscope-reorder \
		-m "not slow" $(ARGS)

ui: $(VENV)/installed  ## compare runs in MLflow's pages, at http://127.0.0.1:5000
	@test -s outputs/mlflow.db || { echo "no runs in outputs/mlflow.db yet: make train makes one" >&2; exit 1; }
	@MLFLOW_DISABLE_TELEMETRY=true $(BIN)/mlflow ui --backend-store-uri sqlite:///outputs/mlflow.db $(ARGS)

lint: $(VENV)/installed-dev  ## ruff: style, and whether the code is formatted
	@$(BIN)/ruff check .
	@$(BIN)/ruff format --check .

types: $(VENV)/installed-dev  ## mypy, strict
	@$(BIN)/mypy

format: $(VENV)/installed-dev  ## ruff: format the code and mend what it can
	@$(BIN)/ruff check --fix .
	@$(BIN)/ruff format .

# The stamps below say what is installed; each is made again when pyproject.toml changes.
$(VENV)/installed: pyproject.toml | $(BIN)/python
	$(BIN)/python -m pip install --editable .
	@touch $@

$(VENV)/installed-test: pyproject.toml | $(BIN)/python
	$(BIN)/python -m pip install --editable ".[test]"
	@touch $(VENV)/installed $@

$(VENV)/installed-dev: pyproject.toml | $(BIN)/python
	$(BIN)/python -m pip install --editable ".[dev]"
	@touch $(VENV)/installed $(VENV)/installed-test $@

$(BIN)/python:
	@command -v "$(PYTHON)" >/dev/null || \
		{ echo "there is no $(PYTHON): name a Python 3.11 or later, as in make $(MAKECMDGOALS) PYTHON=python3.12" >&2; exit 1; }
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
		{ echo "cxrnet needs Python 3.11 or later, but $(PYTHON) is $$($(PYTHON) -V 2>&1); name another one, as in" \
			"make $(MAKECMDGOALS) PYTHON=python3.12" >&2; exit 1; }
	@$(PYTHON) -m venv $(VENV) || { rm -rf $(VENV); exit 1; }
