# Start with make demo and make test. Each command installs what it needs first.
SHELL := /bin/bash
VENV := .venv
BIN := $(VENV)/bin
ROOT := $(if $(filter 0,$(shell id -u)),,sudo)
export PATH := $(CURDIR)/$(BIN):$(PATH)

.PHONY: help demo test lint unit integration host molecule test-vm lock clean
help: ## List the commands
	@grep -hE '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | sed -E 's/:[^#]*## /\t/' | expand -t 16

demo: setup ## Deploy to a sandbox host, up to a real reply
	@scripts/demo

test: setup ## Run everything that CI runs
	@scripts/test

lint: setup ## Run ansible-lint (production), yamllint, ruff, mypy (strict) and the prose check
	@scripts/test lint

unit: setup ## Run the tests that start neither Ansible nor downloads
	@scripts/test unit

integration: setup ## Run the tests that start Ansible or downloads, without a host
	@scripts/test integration

host: setup ## Run the tests on sandbox hosts
	@scripts/test host

molecule: setup ## Run the molecule scenarios on sandbox hosts
	@scripts/test switch headless refusals formats faults

test-vm: setup ## Test the driver in a virtual machine with Secure Boot, through reboots: half an hour
	@scripts/test vm

soak: setup ## Kill everything at random moments, 200 times: over an hour
	$(ROOT) $(BIN)/python scripts/soak

soak-download: setup ## Download from a faulty hub, and kill the download, 500 times: minutes
	@$(BIN)/python scripts/soak-download

bench-switch: setup ## Measure the downtime of a switch, compared with a restart: ten minutes
	$(ROOT) $(BIN)/python scripts/bench-switch

bench-cli: setup ## Measure each command, compared with ansible-playbook with the same roles: half an hour
	$(ROOT) $(BIN)/python scripts/bench-cli

bench-planner: setup ## Compare the planner with published starts of vLLM, the worst first
	@$(BIN)/python scripts/bench-planner

bench-formats: setup ## Measure one model in every format: quality, speed, memory: half an hour
	$(ROOT) $(BIN)/python scripts/bench-formats

gpu-pack: setup ## Pack the files for a GPU machine without a network into OUT (default .gpu)
	@scripts/gpu-pack $(or $(OUT),.gpu)

gpu-run: ## On that machine, as root: deploy to its GPU and break it. STEPS="boot up …", default all
	@scripts/gpu-run $(STEPS)

lock: setup ## Update the locked versions of zorac-deploy's dependencies
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
