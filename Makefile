# Two commands for a fresh machine: `make demo` and `make test`. Behind each stand the plain
# commands of the README, for those without make.
PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin
PIP := $(BIN)/python -m pip --quiet --disable-pip-version-check
# Versions that `make test-all` runs the tests on.
PYTHONS ?= 3.11 3.12 3.13
DEMO := data/demo/08_reporting

.DEFAULT_GOAL := help
.PHONY: help install install-dev airflow demo demo-site serve test test-unit test-all soak lint docs viz mlflow lock sbom record-steps

help:
	@echo "make demo       install, make synthetic images, train and evaluate on them, write the report"
	@echo "make demo-site  the demo's model at a second synthetic site"
	@echo "make install    what runs need, into .venv; make install-dev: also what tests, lint and docs need"
	@echo "make serve      the demo's model over HTTP, and the page of a second reader, at http://127.0.0.1:8000"
	@echo "make test       install and run the whole test suite"
	@echo "make test-unit  the quick part of it: no training, some minutes"
	@echo "make test-all   the quick part on each of Python $(PYTHONS) that is here"
	@echo "make airflow    Airflow, into .venv-airflow, an environment of its own"
	@echo "make soak       an hour of runs that are killed and damaged at any moment"
	@echo "make lint       ruff, mypy and the layers of the imports"
	@echo "make docs       the documentation site, into site/"
	@echo "make viz        the lineage, for the browser"
	@echo "make mlflow     the runs in the browser, the latest beside each other"
	@echo "make lock       renew the locks from pyproject.toml"
	@echo "make sbom       a list of all that is installed, CycloneDX, into sbom.json"

install: $(VENV)/installed

install-dev: $(VENV)/installed-dev

# The locks are complete: pip takes the files whose hashes they have, and looks for no others. Python
# compiles what it imports when it first does, which is less work than compiling everything.
$(VENV)/installed: pyproject.toml requirements-run.lock
	$(PYTHON) -m venv $(VENV)
	$(PIP) install --no-compile --no-deps -r requirements-run.lock
	$(PIP) install --no-deps --no-build-isolation -e .
	@touch $@

$(VENV)/installed-dev: pyproject.toml requirements-dev.lock
	$(PYTHON) -m venv $(VENV)
	$(PIP) install --no-deps -r requirements-dev.lock
	$(PIP) install --no-deps --no-build-isolation -e .
	@touch $(VENV)/installed $@

demo: install
	$(BIN)/python -m busi_pipeline.synthetic data/demo/01_raw
	$(BIN)/kedro run --pipeline=train_inceptionv3 --env=demo
	$(BIN)/kedro run --pipeline=train_inceptionv3_lesion --env=demo
	$(BIN)/kedro run --pipeline=package_inceptionv3_lesion --env=demo
	$(BIN)/kedro run --pipeline=reporting --env=demo
	@echo
	@echo "The demo is done. It ran on synthetic images: its figures say nothing about patients."
	@echo "  report  $(DEMO)/report.html"
	@echo "  ask     $(BIN)/python -m busi_pipeline predict --models data/demo/06_models scan.png"
	@echo "  more    make serve (a page), make demo-site (a second site), $(BIN)/kedro viz run --env=demo"

# The report takes the second site in.
demo-site: install
	$(BIN)/kedro run --pipeline=validate_external_inceptionv3_lesion --env=demo
	$(BIN)/kedro run --pipeline=reporting --env=demo
	@echo
	@echo "  report   $(DEMO)/report.html"
	@echo "  summary  $(DEMO)/inceptionv3_lesion/external/second_site/summary.md"

serve: install
	$(BIN)/python -m busi_pipeline serve --models data/demo/06_models

test: install-dev
	$(BIN)/python -m pytest -n 2 --dist loadfile --no-loadscope-reorder

test-unit: install-dev
	$(BIN)/python -m pytest tests/unit -n 2

# Each in an environment of its own, .venv-<version>. All are tried; one that fails fails the command.
test-all:
	@failed=; tried=; for version in $(PYTHONS); do \
		if ! python$$version --version > /dev/null 2>&1; then \
			echo "Python $$version: not here, skipped"; continue; fi; \
		echo "Python $$version"; tried=yes; \
		$(MAKE) --no-print-directory test-unit PYTHON=python$$version VENV=.venv-$$version \
			|| failed="$$failed $$version"; \
	done; \
	if [ -z "$$tried" ]; then echo "none of Python $(PYTHONS) is here: nothing was tested"; exit 1; fi; \
	if [ -n "$$failed" ]; then echo "failed on Python$$failed"; exit 1; fi

soak: install-dev
	$(BIN)/python -m tests.soak

lint: install-dev
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports

docs: install-dev
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --strict

viz: install
	$(BIN)/kedro viz run --no-browser

mlflow: install
	$(BIN)/kedro runs

# Runs DAGs of the project on this machine: see docs/how-to/cluster.md.
airflow: $(VENV)-airflow/installed

$(VENV)-airflow/installed: deploy/airflow.lock
	$(PYTHON) -m venv $(VENV)-airflow
	$(VENV)-airflow/bin/python -m pip --quiet --disable-pip-version-check install --no-deps -r deploy/airflow.lock
	@touch $@

# After a change of a step's code: see CONTRIBUTING.md.
record-steps: install-dev
	$(BIN)/python -m tests.unit.caching.step_code --record

# requirements.lock has the versions; the others have hashes of the files, too, each for one kind of
# install.
UV_LOCK = $(BIN)/uv pip compile --quiet --universal --python-version 3.11 --no-emit-index-url \
	--no-emit-find-links --no-annotate --custom-compile-command "make lock"
HASHED = $(UV_LOCK) --generate-hashes -c requirements.lock

lock: install-dev
	$(PIP) install uv
	$(UV_LOCK) pyproject.toml --extra dev --extra docs --output-file requirements.lock
	$(HASHED) pyproject.toml --extra serve --output-file requirements-run.lock
	$(HASHED) pyproject.toml --extra dev --extra docs --output-file requirements-dev.lock
	$(HASHED) deploy/requirements.in --output-file deploy/requirements.lock
	$(UV_LOCK) --generate-hashes deploy/airflow.in --output-file deploy/airflow.lock

# Anyone asked for a list of what is installed can hand in this one, in CycloneDX's form.
sbom: install
	$(PYTHON) -m venv $(VENV)-sbom
	$(VENV)-sbom/bin/python -m pip --quiet --disable-pip-version-check install "cyclonedx-bom>=7.2,<8"
	$(VENV)-sbom/bin/cyclonedx-py environment --pyproject pyproject.toml --output-reproducible \
		--output-file sbom.json $(BIN)/python
	@echo "sbom.json lists what $(VENV) has"
