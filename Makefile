# Everything a person or a CI machine needs; only Python >= 3.11, make and a package registry are assumed.
PYTHON ?= python3
VENV   ?= .venv
BIN    := $(VENV)/bin
STAMP  := $(VENV)/.installed
# Clients whose pins of botocore contradict boto3's live in virtual environments of their own.
CLIENTS := .venv-awscli/.installed .venv-s3fs/.installed .venv-deltalake/.installed .venv-pyiceberg/.installed
ARGS   ?=

.DEFAULT_GOAL := help
.PHONY: help dev clients run test huge lowest check format e2e bench s3tests docs clean

help:  ## print this list
	@awk -F ':.*## ' '/^[a-z0-9]+:.*## / {printf "make %-9s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

$(STAMP): pyproject.toml
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/pip install --quiet --disable-pip-version-check --editable '.[dev]'
	touch $@

.venv-deltalake/.installed: PACKAGES := 'deltalake[pyarrow]'
.venv-pyiceberg/.installed: PACKAGES := 'pyiceberg[pyarrow,sql-sqlite]'
# This package itself, the clients of its filesystem, and what their tests need.
.venv-s3fs/.installed: PACKAGES := --editable '.[s4fs]' duckdb pandas polars pyarrow pytest
.venv-s3fs/.installed: pyproject.toml
.venv-%/.installed:
	test -x .venv-$*/bin/python || $(PYTHON) -m venv .venv-$*
	.venv-$*/bin/pip install --quiet --disable-pip-version-check $(or $(PACKAGES),$*)
	touch $@

clients: $(CLIENTS)  ## S3 clients that need a virtual environment of their own

dev: $(STAMP)  ## virtual environment with everything for development

run: $(STAMP)  ## an S3 server and the gateway in front of it on 127.0.0.1:8014
	$(BIN)/s4 --embedded .s4-data $(ARGS)

check: $(STAMP)  ## format, lint, types, floors, fast tests
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(BIN)/lint-imports
	$(BIN)/pytest -q -m 'not e2e and not slow and not huge' -n 2 $(ARGS)

format: $(STAMP)  ## rewrite the sources in house format
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

test: $(STAMP) $(CLIENTS)  ## every test a fresh machine can run in minutes, real S3 server included
	$(BIN)/pytest -q -n 2 -m 'not huge' $(ARGS)

lowest:  ## fast tests with the oldest libraries that pyproject.toml allows, about three minutes
	rm -rf .venv-lowest
	$(PYTHON) -m venv .venv-lowest
	.venv-lowest/bin/pip install --quiet --disable-pip-version-check uv
	.venv-lowest/bin/uv pip install --quiet --python .venv-lowest/bin/python \
		--resolution lowest-direct --editable '.[dev]'
	.venv-lowest/bin/pytest -q -m 'not e2e and not slow and not huge' -n 2 $(ARGS)

huge: $(STAMP) $(CLIENTS)  ## the tests that move gigabytes or take minutes, about half an hour
	$(BIN)/pytest -q -m huge -o faulthandler_timeout=3600 $(ARGS)

e2e: $(STAMP) $(CLIENTS)  ## only the tests with a real gateway process and a real S3 server
	$(BIN)/pytest -q -m 'e2e and not huge' $(ARGS)

bench: $(STAMP)  ## ratios against the backend direct, in one paired run
	$(BIN)/python -m bench $(ARGS)

s3tests: $(STAMP)  ## differential run of a Ceph s3-tests checkout: make s3tests S3TESTS=path
	$(BIN)/python -m tests.s3tests_differential $(S3TESTS) $(ARGS)

docs: $(STAMP)  ## regenerate the generated reference pages
	$(BIN)/python -m tests.docs.generate

clean:  ## remove what the targets above made
	rm -rf $(VENV) .venv-awscli .venv-s3fs .venv-deltalake .venv-pyiceberg .s4-data .mypy_cache .ruff_cache .pytest_cache .import_linter_cache
