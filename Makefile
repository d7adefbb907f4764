# Two commands for a fresh machine: `make demo` and `make test`. Behind each stand the plain
# commands of the README, for those without make.
PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin
PIP := $(BIN)/python -m pip --quiet --disable-pip-version-check

.DEFAULT_GOAL := help
.PHONY: help install demo serve test test-unit lint docs viz mlflow lock record-steps

help:
	@echo "make demo       install, make synthetic images, train and evaluate on them"
	@echo "make serve      the demo's model over HTTP, and the page of a second reader, at http://127.0.0.1:8000"
	@echo "make test       install and run the whole test suite"
	@echo "make test-unit  the quick part of it: no training, some minutes"
	@echo "make lint       ruff, mypy and the layers of the imports"
	@echo "make docs       the documentation site, into site/"
	@echo "make viz        the lineage in the browser"
	@echo "make mlflow     the runs in the browser"
	@echo "make lock       renew requirements.lock from pyproject.toml"

install: $(VENV)/installed

$(VENV)/installed: pyproject.toml requirements.lock
	$(PYTHON) -m venv $(VENV)
	$(PIP) install -r requirements.lock
	$(PIP) install --no-deps -e .
	@touch $@

demo: install
	$(BIN)/python -m busi_pipeline.synthetic data/demo/01_raw
	$(BIN)/kedro run --pipeline=train_inceptionv3 --env=demo
	$(BIN)/kedro run --pipeline=train_inceptionv3_lesion --env=demo
	$(BIN)/kedro run --pipeline=package_inceptionv3_lesion --env=demo
	@echo
	@echo "The demo is done. It ran on synthetic images: its figures say nothing about patients."
	@echo "  metrics  data/demo/08_reporting/inceptionv3/metrics.json and per_class_metrics.csv"
	@echo "  plots    data/demo/08_reporting/inceptionv3/*.png"
	@echo "  lesions  data/demo/08_reporting/lesion_boxes.png, and inceptionv3_lesion/ beside it"
	@echo "  model    data/demo/06_models/inceptionv3_lesion/ with its model card; on an image of your own:"
	@echo "           $(BIN)/python -m busi_pipeline predict --models data/demo/06_models scan.png"
	@echo "  page     make serve                           then http://127.0.0.1:8000, the model as second reader"
	@echo "  runs     $(BIN)/kedro mlflow ui              then http://127.0.0.1:5000, experiment busi_pipeline_demo"
	@echo "  lineage  $(BIN)/kedro viz run --env=demo     then http://127.0.0.1:4141"

serve: install
	$(BIN)/python -m busi_pipeline serve --models data/demo/06_models

test: install
	$(BIN)/python -m pytest -n 2 --dist loadfile --no-loadscope-reorder

test-unit: install
	$(BIN)/python -m pytest tests/unit -n 2

lint: install
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports

docs: install
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --strict

viz: install
	$(BIN)/kedro viz run

mlflow: install
	$(BIN)/kedro mlflow ui

# After a change of a step's code: see CONTRIBUTING.md.
record-steps: install
	$(BIN)/python -m tests.unit.caching.step_code --record

lock: install
	$(PIP) install uv
	$(BIN)/uv pip compile pyproject.toml --extra dev --extra docs --universal --python-version 3.11 \
		--no-emit-index-url --no-emit-find-links --no-annotate \
		--custom-compile-command "make lock" --output-file requirements.lock
