#!/usr/bin/env bash
# The whole product on a cluster of its own: what .github/workflows/e2e.yml runs. Needs docker, kind and kubectl; with 4 CPUs,
# 16 GB of memory and 40 GB of disk it takes about an hour, most of it for the images.
#   tests/cluster/kind.sh            KEEP=1 keeps the cluster; LOGS=folder (build/cluster-logs) gets the logs after a failure
set -euo pipefail
cd "$(dirname "$0")/../.."
name=fashion-tuning-e2e
logs=${LOGS:-build/cluster-logs}

finish() {
  code=$?
  if [ "$code" -ne 0 ]; then
    mkdir -p "$logs"
    kubectl get nodes,pods,events --all-namespaces --output=wide >"$logs/resources.txt" || true
    kubectl --namespace kubeflow get workflows --output=yaml >"$logs/workflows.yaml" || true
    kind export logs "$logs/kind" --name "$name" || true
    echo "logs are in $logs" >&2
  fi
  [ -n "${KEEP:-}" ] || kind delete cluster --name "$name"
  exit "$code"
}

kind create cluster --name "$name" --wait=3m
trap finish EXIT
make setup
.venv/bin/python -m pipelines images build --cluster kind --cpu
for image in $(.venv/bin/python -m pipelines images names --cluster kind); do
  kind load docker-image "$image" --name "$name"
done
make deploy CLUSTER=kind
.venv/bin/python -m pipelines preflight --cluster kind --dataset fashion-mnist
make test-cluster CLUSTER=kind
