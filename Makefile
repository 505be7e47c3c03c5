# Everything that can be done here; `make` alone lists it. Each target makes what it needs in .venv first.

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
RUN := $(BIN)/python
ARGS ?=
ONLY ?=
AGAINST ?=
# One process more than processors, since tests wait for the servers.
WORKERS ?= $(shell $(PYTHON) -c 'import os; print((os.cpu_count() or 1) + 1)')

# Each program that the tests start would compile the whole package anew.
unexport PYTHONDONTWRITEBYTECODE

.DEFAULT_GOAL := help
.NOTPARALLEL:
.PHONY: help demo test check matrix servers format lint types layers coverage slow-tests docs docs-site docs-serve pictures mutants soak \
	package sbom bench bench-peers bench-postgresql bench-async bench-outbox bench-against bench-growth bench-results bench-report clean

help:  ## list the targets
	@awk -F ':.*## ' '/^[a-z-]+:.*## / {printf "  make %-16s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

demo: $(VENV)/.demo  ## load a month of real flights through save() and signals, and print the summary
	@$(RUN) -m examples.flights $(ARGS)

test: $(VENV)/.dev  ## run the quick tests, on SQLite and, where they answer, PostgreSQL and MariaDB; ARGS= for pytest
	@echo "whole programs (examples, benchmarks, type checkers, forks) and the other way to each database are tested in 'make check', or by ARGS='-m slow'"
	@$(RUN) -m pytest -m "not slow" --hypothesis-profile quick -n $(WORKERS) --dist worksteal $(ARGS)

check: servers format lint layers coverage slow-tests  ## all that must hold before a commit, on three databases; the tests run the type checkers
	@echo "== check: all passed"

matrix:  ## run the quick tests by each Python from 3.11 to 3.14 that is found, in .matrix; ARGS= for pytest
	@$(PYTHON) tools/matrix.py $(ARGS)

servers: $(VENV)/.dev  ## say which database servers answer, and where they were looked for
	@echo "== servers"
	@$(RUN) -m tests.servers

format: $(VENV)/.dev  ## look for files that `ruff format` would change
	@echo "== format"
	@$(BIN)/ruff format --check .

lint: $(VENV)/.dev  ## look for mistakes and unclean imports
	@echo "== lint"
	@$(BIN)/ruff check .

types: $(VENV)/.dev  ## check the types with mypy --strict and pyright
	@echo "== types: mypy"
	@$(RUN) -m mypy
	@echo "== types: pyright"
	@$(BIN)/pyright --pythonpath $(RUN)

layers: $(VENV)/.dev  ## check that imports point down only
	@echo "== layers"
	@$(BIN)/lint-imports

coverage: $(VENV)/.dev  ## run the quick tests and print how much of the package they reach, by branches
	@echo "== quick tests, with coverage"
	@$(RUN) -m pytest -m "not slow" --hypothesis-profile quick -n $(WORKERS) --dist worksteal --cov --cov-report=term $(ARGS)

slow-tests: $(VENV)/.dev  ## run the tests that 'make test' leaves out; to measure these as well would take twice as long
	@echo "== slow tests"
	@$(RUN) -m pytest -m slow -n $(WORKERS) --dist worksteal $(ARGS)

docs: $(VENV)/.dev  ## write what pages repeat: the reference of the command line, the table of changes
	@$(RUN) -m tools.reference

docs-site: $(VENV)/.docs  ## build the site of the documentation into site/; any warning is an error
	@NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build $(ARGS)

docs-serve: $(VENV)/.docs  ## serve that site on this machine, and build it anew when a page changes
	@NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs serve $(ARGS)

pictures: $(VENV)/.dev  ## draw what the README shows: a recording of the demo, and the way of a save
	@$(RUN) -m tools.pictures

mutants: $(VENV)/.dev  ## change the code in small ways and see the tests fail; ONLY=db.routing for one file
	@$(RUN) tools/mutants.py $(ONLY)

soak: $(VENV)/.dev  ## run the long tests for ten minutes, and print what they have found; ARGS='web --seconds 300' for a part, and how long
	@$(RUN) -m tools.soak $(ARGS)

package: $(VENV)/.dev  ## build the wheel and the source distribution into dist, and check that an index takes them
	@rm -rf dist
	@$(RUN) -m build --no-isolation --outdir dist
	@$(RUN) -m twine check --strict dist/*.whl dist/*.tar.gz

sbom: $(VENV)/.dev  ## list microorm and what it installs, with versions and licences, in dist/microorm.cdx.json (CycloneDX)
	@rm -rf build/sbom
	@$(PYTHON) -m venv --without-pip build/sbom
	@$(RUN) -m pip --python build/sbom install --quiet --disable-pip-version-check .
	@mkdir -p dist
	@$(BIN)/cyclonedx-py environment --output-reproducible \
	  --output-file dist/microorm.cdx.json build/sbom
	@echo "dist/microorm.cdx.json"

bench: $(VENV)/.demo  ## time microorm against the plain driver and SQLAlchemy Core, and its import
	@$(RUN) -m benchmarks $(ARGS)

bench-peers: $(VENV)/.peers  ## the same, with the ORMs that install from the index
	@$(RUN) -m benchmarks --peers $(ARGS)

bench-postgresql: $(VENV)/.peers  ## all of them on PostgreSQL, by wall time
	@$(RUN) -m benchmarks --peers --database postgresql $(ARGS)

bench-async: $(VENV)/.peers  ## what is awaited, beside the drivers and the ORMs for asyncio; ARGS="--database postgresql"
	@$(RUN) -m benchmarks.asynchronous --peers $(ARGS)

bench-against: $(VENV)/.demo  ## time it against the microorm of another checkout, in one run; AGAINST=../other
	@test -n "$(AGAINST)" || { echo "which other checkout? make bench-against AGAINST=../other" >&2; exit 2; }
	@$(RUN) -m benchmarks --against "$(AGAINST)" $(ARGS)

bench-outbox: $(VENV)/.dev  ## saves with durable receivers and their delivery, on each database; ARGS="--database sqlite"
	@$(RUN) -m benchmarks.outbox $(ARGS)

bench-growth: $(VENV)/.peers  ## time and memory from a thousand rows to a million
	@$(RUN) -m benchmarks.growth --peers $(ARGS)

bench-results: $(VENV)/.peers $(VENV)/.bench  ## measure anew what docs/performance.md shows, and make its tables and plots
	@$(RUN) -m benchmarks --peers --rows 1000 --no-samples --json benchmarks/results/sqlite.json
	@$(RUN) -m benchmarks --peers --database postgresql --rows 500 --no-samples --json benchmarks/results/postgresql.json
	@$(RUN) -m benchmarks.growth --peers --json benchmarks/results/growth.json
	@$(RUN) -m benchmarks.page

bench-report: $(VENV)/.bench  ## make the tables and plots of docs/performance.md from benchmarks/results
	@$(RUN) -m benchmarks.page

clean:  ## remove what the other targets made, .venv and .matrix too
	rm -rf $(VENV) .matrix build dist mutants site htmlcov .coverage .coverage.* .hypothesis
	rm -rf .mypy_cache .ruff_cache .pytest_cache .import_linter_cache
	find . -name __pycache__ -type d -prune -exec rm -rf {} +

$(BIN)/python:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
	  { echo "microorm needs Python 3.11 or newer, and $(PYTHON) is `$(PYTHON) --version 2>&1`: try make PYTHON=python3.12" >&2; exit 1; }
	@$(PYTHON) -m venv $(VENV)

$(VENV)/.demo: pyproject.toml | $(BIN)/python
	@echo "installing microorm into $(VENV) ..."
	@$(RUN) -m pip install --quiet --disable-pip-version-check --editable .
	@touch $@

$(VENV)/.dev: pyproject.toml | $(BIN)/python
	@echo "installing microorm and what its tests need into $(VENV) ..."
	@$(RUN) -m pip install --quiet --disable-pip-version-check --editable '.[dev]'
	@touch $(VENV)/.demo $(VENV)/.bench $(VENV)/.docs $@

$(VENV)/.bench: pyproject.toml | $(VENV)/.demo
	@echo "installing what draws the plots into $(VENV) ..."
	@$(RUN) -m pip install --quiet --disable-pip-version-check --editable '.[bench]'
	@touch $@

$(VENV)/.docs: pyproject.toml | $(VENV)/.demo
	@echo "installing what builds the site into $(VENV) ..."
	@$(RUN) -m pip install --quiet --disable-pip-version-check --editable '.[docs]'
	@touch $@

$(VENV)/.peers: pyproject.toml benchmarks/peers.txt | $(VENV)/.demo
	@echo "installing the peers into $(VENV) ..."
	@$(RUN) -m pip install --quiet --disable-pip-version-check --requirement benchmarks/peers.txt
	@touch $@
