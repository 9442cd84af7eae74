PYTHON ?= python3
VENV := .venv
PY := $(VENV)/bin/python
CLUSTER ?= gke
CRON ?= 0 0 3 * * 1
RUN := $(PY) -m pipelines run
PYTEST := $(PY) -m pytest -q --durations=5
# The commands are meant to be read by people: no progress chatter of the tools underneath.
export UV_NO_PROGRESS := 1
export VIRTUAL_ENV := $(CURDIR)/$(VENV)

.DEFAULT_GOAL := help
.PHONY: help setup lock run test stress lint compile clean

help: ## Show this list
	@grep -hE '^[a-z-]+:.*##' $(MAKEFILE_LIST) | awk -F ':.*## ' '{printf "  %-12s %s\n", $$1, $$2}'

setup: $(VENV)/.ready ## Make the environment in .venv from the locked requirements

$(VENV)/.ready: requirements.txt
	$(PYTHON) -m venv $(VENV) || { echo "python3 needs its venv module: apt-get install python3-venv" >&2; exit 1; }
	$(VENV)/bin/pip install -q --disable-pip-version-check uv==0.13.9
	$(VENV)/bin/uv pip install -q --require-hashes -r requirements.txt
	touch $@

lock: setup ## Lock the newest versions that pyproject.toml allows
	$(VENV)/bin/uv pip compile -q --upgrade --universal --python-version 3.11 --generate-hashes --no-emit-index-url \
	  --custom-compile-command "make lock" --all-extras --group test -o requirements.txt pyproject.toml

run: setup ## Answer the question on the generated sample, on this machine (OUT=folder)
	$(RUN) --preset quickstart $(if $(OUT),--out $(OUT))

test: setup lint ## Pass the tests; base, Keras and torch in processes of their own
	$(PYTEST) --framework=base -n 2 --dist=worksteal
	$(PYTEST) --framework=keras
	$(PYTEST) --framework=torch

stress: setup ## Pass the tests that are too long for `make test`
	$(PYTEST) --framework=base --slow
	$(PYTEST) --framework=keras --slow
	$(PYTEST) --framework=torch --slow

lint: setup ## Check style, imports and common mistakes
	$(VENV)/bin/ruff check -q .
	$(VENV)/bin/ruff format -q --check .

compile: setup ## Write the YAML to upload in the Kubeflow UI (CLUSTER=gke)
	$(PY) -m pipelines compile --cluster $(CLUSTER)

clean: ## Remove the environment, runs and build outputs
	rm -rf $(VENV) build runs
