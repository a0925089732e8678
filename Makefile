# The one task runner. `make` lists the targets; CI calls the same ones.
SHELL := /bin/bash
.DEFAULT_GOAL := help

VENV    := .venv
BIN     := $(VENV)/bin
PYTHON3 ?= python3
# make images PYTHON=3.12 BASE=python:3.12-slim-bookworm
PYTHON  ?= 3.11
BASE    ?=
# make test TESTS=tests/unit
TESTS   ?= tests
JOBS    ?= 3

.PHONY: help env demo up test test-gpu lint types imports unit engine images server-image lock bench bench-peers soak clean

help:  ## list the targets
	@grep -hE '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 12

env: $(VENV)/.done  ## make the environment (.venv)

$(VENV)/.done: pyproject.toml requirements.lock
	@$(PYTHON3) scripts/check_python.py
	@test -x $(BIN)/python || $(PYTHON3) -m venv $(VENV)
	@test -x $(BIN)/uv || $(BIN)/python -m pip install --quiet --disable-pip-version-check uv
	@$(BIN)/uv pip sync --quiet --python $(BIN)/python --require-hashes requirements.lock
	@$(BIN)/uv pip install --quiet --python $(BIN)/python --no-deps --editable .
	@touch $@

demo: env  ## deploy the examples on a throw-away installation, call them, show the answers
	@$(BIN)/python examples/demo.py

up: env  ## run fngw here until Ctrl-C
	@$(BIN)/fngw up

test: env engine images server-image  ## everything: lint, types, and all tests, real containers included (Debian/Ubuntu, root)
	@$(MAKE) --no-print-directory lint types imports
	@$(BIN)/pytest -n $(JOBS) --dist loadgroup $(TESTS)

test-gpu: env  ## what needs an NVIDIA GPU: two replicas that share one, with PyTorch (gigabytes)
	@$(BIN)/python tests/gpu/look.py
	@$(BIN)/pytest -s tests/gpu/check_sharing.py

unit: env  ## only the fast tests
	@$(BIN)/pytest -q -n $(JOBS) tests/unit

lint: env  ## ruff
	@$(BIN)/ruff check --quiet .
	@$(BIN)/ruff format --quiet --check .

types: env  ## mypy, strict
	@$(BIN)/mypy

imports: env  ## who may import whom
	@$(BIN)/lint-imports --no-logo 2>&1 | tail -n 12; exit $${PIPESTATUS[0]}

engine:  ## install and start what the tests need: a Docker engine, Redis, debootstrap, a C compiler (Debian/Ubuntu, root)
	@scripts/engine.sh install
	@scripts/engine.sh start

images: env  ## make the base images for PYTHON (default 3.11); BASE names one to pull
	@PYTHON=$(PYTHON) BASE=$(BASE) UV=$(CURDIR)/$(BIN)/uv runtime-image/build.sh
	@scripts/redis-image.sh

server-image: images  ## make fngw/server, which compose.yaml runs
	@PYTHON=$(PYTHON) UV=$(CURDIR)/$(BIN)/uv server-image/build.sh

bench: env engine images  ## measure; prints ratios from interleaved runs
	@$(BIN)/python bench/redeploy.py
	@$(BIN)/python bench/reconfigure.py
	@$(BIN)/python bench/memory.py
	@$(BIN)/python bench/builds.py
	@$(BIN)/python bench/dataplane.py
	@$(BIN)/python bench/calls.py

bench-peers: env  ## measure other servers against fngw: installs them from the package index for the time being (root)
	@$(BIN)/python bench/peers.py

soak: env  ## a million requests with random faults: no answer to the wrong request, no leak (10 to 25 minutes)
	@$(BIN)/python bench/soak.py

lock: env  ## resolve the environment anew
	@$(BIN)/uv pip compile --quiet --universal --no-emit-index-url --generate-hashes --upgrade \
	  --python-version 3.11 --extra server --extra embedded --group dev pyproject.toml -o requirements.lock

clean:  ## remove what make made here
	@rm -rf $(VENV) dist .mypy_cache .pytest_cache .ruff_cache .import_linter_cache .hypothesis
