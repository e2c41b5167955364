# Two words for a newcomer: make demo, make test. Everything they need is set up first, and kept for the next time.
SHELL := /bin/bash
VENV := .venv
BIN := $(VENV)/bin
ROOT := $(if $(filter 0,$(shell id -u)),,sudo)
export PATH := $(CURDIR)/$(BIN):$(PATH)

.PHONY: help demo test lint unit host molecule test-vm lock clean
help: ## Show the words that make knows
	@grep -hE '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | sed -E 's/:[^#]*## /\t/' | expand -t 16

demo: setup ## A throwaway host, from nothing to a real reply
	@scripts/demo

test: setup ## Everything that can be tested on this machine, as CI does it
	@scripts/test

lint: setup ## ansible-lint (production), yamllint, ruff and mypy (strict)
	@scripts/test lint

unit: setup ## The tests that need no host: seconds
	@scripts/test unit

host: setup ## The tests on real throwaway hosts
	@scripts/test host

molecule: setup ## The molecule scenarios on real throwaway hosts
	@scripts/test molecule

test-vm: setup ## The driver in a virtual machine with Secure Boot, through reboots: half an hour
	@scripts/test vm

soak: setup ## Kill everything at random moments, 200 times: over an hour
	$(ROOT) $(BIN)/python scripts/soak

soak-download: setup ## Fetch models from a hub that misbehaves, and kill the fetch, 500 times: minutes
	@$(BIN)/python scripts/soak-download

bench-switch: setup ## How long nothing answers in a switch, beside a bare restart of the same engine: ten minutes
	$(ROOT) $(BIN)/python scripts/bench-switch

bench-cli: setup ## How long each command takes, beside plain ansible-playbook over the same roles: half an hour
	$(ROOT) $(BIN)/python scripts/bench-cli

bench-planner: setup ## What the planner says of published starts of vLLM, the worst first
	@$(BIN)/python scripts/bench-planner

bench-formats: setup ## One model in every format that vLLM serves here: loss, speed, memory: half an hour
	$(ROOT) $(BIN)/python scripts/bench-formats

gpu-pack: setup ## Pack what a GPU machine without network needs, in parts, into OUT (default .gpu)
	@scripts/gpu-pack $(or $(OUT),.gpu)

gpu-run: ## On that machine, as root: deploy to its GPU and break it. STEPS="boot up …", default all
	@scripts/gpu-run $(STEPS)

lock: setup ## Resolve the versions of what zorac-deploy itself needs anew
	uv pip compile pyproject.toml --group dev --universal --python-version 3.11 --generate-hashes --no-annotate \
	    --no-header --quiet --upgrade --output-file requirements.lock

clean: ## Remove every sandbox and the virtual environment; the cache in ~/.cache/zorac-deploy stays
	@[ ! -x $(BIN)/zorac-deploy ] || $(ROOT) $(BIN)/zorac-deploy sandbox down --all
	rm -rf $(VENV)

.PHONY: setup
setup: $(VENV)/ready
	@scripts/setup system

$(VENV)/ready: requirements.lock pyproject.toml scripts/setup
	@scripts/setup python $(VENV)
