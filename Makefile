# Every target installs what it needs into .venv first; `make help` lists them.
SHELL := /bin/bash
.DEFAULT_GOAL := help
PYTHON ?= $(shell for v in python3.11 python3.12 python3.13 python3.14 python3; do command -v $$v >/dev/null 2>&1 && $$v -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null && echo $$v && break; done)
BIN := .venv/bin
PROTOS = $(shell cd protos && find colloquy -name '*.proto' | sort)

.PHONY: help install run test lint breaking format gen lock bench chaos prove clean

help: ## this list
	@grep -hE '^[a-z]+:.*## ' $(MAKEFILE_LIST) | sort | awk -F ':.*## ' '{printf "make %-10s %s\n", $$1, $$2}'

install: .venv/installed ## install the locked dependencies and the project into .venv

.venv/installed: requirements.txt pyproject.toml
	@test -n "$(PYTHON)" || { echo "Colloquy needs Python 3.11 or newer on the PATH (or make PYTHON=/path/to/python)." >&2; exit 1; }
	@test -x $(BIN)/python || $(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --require-hashes -r requirements.txt
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --no-deps --no-build-isolation -e .
	@touch $@

run: install ## start everything, play a short interview, stay up until Ctrl-C
	@exec $(BIN)/colloquy run

test: install ## the whole suite, on a real PostgreSQL
	$(BIN)/python -m pytest --numprocesses 2

lint: install ## format, types, import rules, contracts
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy libs services migrations tests
	$(BIN)/lint-imports --no-logo
	$(BIN)/buf format --diff --exit-code
	$(BIN)/buf lint

breaking: install ## what the contracts broke since a commit: make breaking AGAINST=HEAD~1
	@test -n "$(AGAINST)" || { echo "Say since which commit: make breaking AGAINST=HEAD~1" >&2; exit 2; }
	@older=$$(mktemp -d) && trap 'rm -rf "$$older"' EXIT && set -o pipefail && \
		git archive "$(AGAINST)" buf.yaml protos | tar -x -C "$$older" && $(BIN)/buf breaking --against "$$older"

format: install ## rewrite Python and protos in the house format
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .
	$(BIN)/buf format --write

gen: install ## regenerate the gRPC stubs from protos/
	cd protos && ../$(BIN)/python -m grpc_tools.protoc -I . -I ../$(shell $(BIN)/python -c 'import os, grpc_tools; print(os.path.relpath(os.path.join(os.path.dirname(grpc_tools.__file__), "_proto")))') \
		--plugin=protoc-gen-mypy=../$(BIN)/protoc-gen-mypy --plugin=protoc-gen-mypy_grpc=../$(BIN)/protoc-gen-mypy_grpc \
		--python_out=. --grpc_python_out=. --mypy_out=quiet:. --mypy_grpc_out=quiet:. $(PROTOS)

lock: install ## resolve requirements.txt again from pyproject.toml
	$(BIN)/uv pip compile --quiet --universal --generate-hashes --no-annotate --no-header --python-version 3.11 --extra dev pyproject.toml -o requirements.txt

bench: install ## yardstick, load, overhead and CPU per turn and process
	$(BIN)/python -m tests.bench $(ARGS)

# gRPC reads the variable as it is imported; with it, it would tell of every process that the suite starts.
SEED ?= 1
TURNS ?= 1000
chaos: install ## the fault suite: make chaos SEED=n TURNS=n [JSON=report.json] [ARGS="..."]
	GRPC_ENABLE_FORK_SUPPORT=false $(BIN)/python -m tests.chaos --seed $(SEED) --turns $(TURNS) $(if $(JSON),--json "$(JSON)") $(ARGS)

prove: install ## the long proofs: the turn protocol searched, the real stores held to it
	$(BIN)/python -m tests.prove
	$(BIN)/python -m pytest tests/prove --hypothesis-profile=prove --timeout=0

# As root PostgreSQL may keep its data where its user reaches it: .data/postgres/elsewhere is a link to there.
clean: ## remove .venv, .data and caches
	@elsewhere=$$(readlink .data/postgres/elsewhere) || exit 0; \
		case "$$elsewhere" in /*/colloquy-postgres-*) echo "rm -rf $$elsewhere"; rm -rf "$$elsewhere";; esac
	rm -rf .venv .data .mypy_cache .ruff_cache .pytest_cache .hypothesis .import_linter_cache
