# Two commands, each doing all its set-up on a machine with Python 3.11, make, node and npm:
#
#   make serve    start the server; ARGS="--port 9000" passes flags on
#   make test     everything CI checks
#
# and one that judges: `make conformance` this server, in front of the suite's provider in each of its dialects;
# `make conformance URL=http://127.0.0.1:8080/v1 MODEL=demo` any other one. The reports are in conformance-report/.
#
# The locks pin every package by hash; `make lock` writes them anew from pyproject.toml.

PYTHON ?= $(shell command -v python3.11 || command -v python3)
VENV   := .venv
CODEX  := tests/clients/node_modules/.bin/codex
ARGS   ?=

.PHONY: serve test fix lock clean conformance

serve: $(VENV)/serve.stamp
	@$(VENV)/bin/rejoinder serve $(ARGS)

test: $(VENV)/test.stamp $(CODEX)
	$(VENV)/bin/python -m tests $(ARGS)

URL    ?=
MODEL  ?= demo
REPORT := conformance-report

ifeq ($(URL),)
conformance: $(VENV)/test.stamp $(CODEX)
	@$(VENV)/bin/python -m tests.conformance.ours $(REPORT) --codex $(CODEX) $(ARGS)
else
conformance: $(VENV)/serve.stamp
	@mkdir -p $(REPORT)
	@$(VENV)/bin/rejoinder conformance $(URL) --model $(MODEL) --report $(REPORT)/report.html --report $(REPORT)/report.json $(ARGS)
endif

fix: $(VENV)/test.stamp
	$(VENV)/bin/python -m tests --fix

$(VENV)/bin/python:
	$(PYTHON) -m venv $(VENV)

$(VENV)/serve.stamp: requirements.lock pyproject.toml | $(VENV)/bin/python
	@echo "installing what the server needs (once)"
	@$(VENV)/bin/python -m pip install --quiet --disable-pip-version-check --require-hashes -r requirements.lock
	@$(VENV)/bin/python -m pip install --quiet --disable-pip-version-check --no-deps --editable .
	@touch $@

$(VENV)/test.stamp: requirements-dev.lock $(VENV)/serve.stamp
	@echo "installing what the tests need (once)"
	@$(VENV)/bin/python -m pip install --quiet --disable-pip-version-check --require-hashes -r requirements-dev.lock
	@touch $@

$(CODEX): tests/clients/package.json tests/clients/package-lock.json
	@echo "installing the Codex client (once)"
	@npm ci --silent --no-audit --no-fund --prefix tests/clients
	@touch $@

LOCK := $(VENV)/bin/pip-compile --quiet --generate-hashes --no-strip-extras --allow-unsafe \
	--no-emit-index-url --no-emit-trusted-host --no-emit-find-links --no-header

lock: $(VENV)/test.stamp
	$(LOCK) --extra dev --output-file requirements-dev.lock pyproject.toml
	$(LOCK) --constraint requirements-dev.lock --output-file requirements.lock pyproject.toml

clean:
	rm -rf $(VENV) tests/clients/node_modules .mypy_cache .ruff_cache .pytest_cache .coverage*
