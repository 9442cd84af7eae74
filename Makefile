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
# A run starts two dozen processes that import TensorFlow or torch: 6 s each with bytecode, 15 s without.
unexport PYTHONDONTWRITEBYTECODE

.DEFAULT_GOAL := help
.PHONY: help setup lock run test test-keras test-torch stress test-gpu lint compile bench pictures images push digest sign test-images test-cluster test-kind deploy undeploy preflight submit schedule clean

help: ## Show this list
	@grep -hE '^[a-z-]+:.*##' $(MAKEFILE_LIST) | awk -F ':.*## ' '{printf "  %-12s %s\n", $$1, $$2}'

setup: $(VENV)/.ready ## Make the environment in .venv from the locked requirements, with the program fashion-tuning

$(VENV)/.ready: requirements.txt pyproject.toml
	$(PYTHON) -m venv $(VENV) || { echo "python3 needs its venv module: apt-get install python3-venv" >&2; exit 1; }
	$(VENV)/bin/pip install -q --disable-pip-version-check uv==0.13.9
	$(VENV)/bin/uv pip install -q --require-hashes -r requirements.txt
	$(VENV)/bin/uv pip install -q --no-deps -e .
	touch $@

lock: setup ## Lock the newest versions that pyproject.toml allows
	$(VENV)/bin/uv pip compile -q --upgrade --universal --python-version 3.11 --generate-hashes --no-emit-index-url \
	  --custom-compile-command "make lock" --all-extras --group test -o requirements.txt pyproject.toml
	$(PY) -m pipelines images lock --upgrade

run: setup ## Answer the question on the generated sample, on this machine (OUT=folder)
	$(RUN) --preset quickstart $(if $(OUT),--out $(OUT))

# Many tests wait for servers and processes: four at once keep two cores busy.
test: setup ## Pass lint and the tests; base, Keras and torch in processes of their own
	@$(MAKE) --no-print-directory --output-sync --jobs 2 lint test-keras test-torch
	$(PYTEST) --framework=base -n 4 --dist=worksteal

test-keras: setup ## Pass the tests that import TensorFlow
	$(PYTEST) --framework=keras

test-torch: setup ## Pass the tests that import torch
	$(PYTEST) --framework=torch

stress: setup ## Pass the tests that are too long for `make test`
	$(PYTEST) --framework=base --slow
	$(PYTEST) --framework=keras --slow
	$(PYTEST) --framework=torch --slow
	$(PY) -m tests.gpu || test $$? -eq 78

test-gpu: setup ## Check on this machine's GPU what is promised of one, then measure it; 78 where there is none
	$(PY) -m tests.gpu

lint: setup ## Check style, types and common mistakes
	$(VENV)/bin/ruff check -q .
	$(VENV)/bin/ruff format -q --check .
	$(VENV)/bin/mypy --no-error-summary
	$(VENV)/bin/bandit -q -c pyproject.toml -r components pipelines images
	$(VENV)/bin/hadolint images/Dockerfile
	$(VENV)/bin/yamllint -s manifests pipelines/profiles
# Tests use made-up secrets; lock files are nothing but hashes, and checksums and commits are hexadecimal everywhere.
	git ls-files -z -- ':!tests' ':!*requirements*.txt' | xargs -0 $(VENV)/bin/detect-secrets-hook --no-verify \
	  --disable-plugin HexHighEntropyString

compile: setup ## Write the YAML to upload in the Kubeflow UI (CLUSTER=gke)
	$(PY) -m pipelines compile --cluster $(CLUSTER)

bench: setup ## Measure speed side by side with the tutorial loops (ARGS="--only mlp")
	$(PY) -m benchmarks $(ARGS)

pictures: setup ## Run the quick start and draw README's pictures of it (needs chromium)
	$(PY) -m benchmarks.pictures

test-images: setup ## Build the images on a stand-in base with podman and run the quick start in them (as root)
	$(PYTEST) tests/images/check_images.py

test-cluster: setup ## Run the product with its faults on the current cluster; CLUSTER=kind, see tests/cluster
	CLUSTER=$(CLUSTER) $(PYTEST) -x -s tests/cluster/check_cluster.py

test-kind: ## The same on a kind cluster of its own, images and all (needs docker, kind and kubectl)
	tests/cluster/kind.sh

deploy: ## Install Kubeflow Pipelines and what the pipeline needs on the current cluster
	kubectl apply --server-side --force-conflicts -k manifests/overlays/$(CLUSTER)
	kubectl -n kubeflow wait --for=condition=Available deployment --all --timeout=15m

undeploy: ## Remove all of that again, with every run, artifact and study inside the cluster
	kubectl delete --ignore-not-found -k manifests/overlays/$(CLUSTER)

preflight: setup ## Find everything that would stop a run on the cluster, at once
	$(PY) -m pipelines preflight --cluster $(CLUSTER) $(ARGS)

images: setup ## Build the three images (CLUSTER=local for runs with --containers; TARGETS=base for one)
	$(PY) -m pipelines images build --cluster $(CLUSTER) $(TARGETS)

push: setup ## Push the images to the registry of the cluster's profile (TARGETS=base for one)
	$(PY) -m pipelines images push --cluster $(CLUSTER) $(TARGETS)

digest: setup ## Print name and digest of one pushed image (CLUSTER=gke TARGETS=base)
	@$(PY) -m pipelines images digest --cluster $(CLUSTER) $(TARGETS)

sign: setup ## Sign the pushed images with cosign (CLUSTER=gke TARGETS=...)
	$(PY) -m pipelines images sign --cluster $(CLUSTER) $(TARGETS)

submit: setup ## Start a run on a cluster (CLUSTER=gke ARGS="--wait --set search_trials=10")
	$(PY) -m pipelines submit --cluster $(CLUSTER) $(ARGS)

schedule: setup ## Retrain regularly (CLUSTER=gke CRON="0 0 3 * * 1" ARGS=...)
	$(PY) -m pipelines schedule --cluster $(CLUSTER) --cron "$(CRON)" $(ARGS)

clean: ## Remove the environment, runs and build outputs
	rm -rf $(VENV) build runs
