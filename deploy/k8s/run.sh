#!/bin/sh
# Applies an overlay and waits until all of it runs:  sh deploy/k8s/run.sh [OVERLAY]     local, unless told
set -eu
cd "$(dirname "$0")"
overlay=${1:-local}
[ -f "overlays/$overlay/kustomization.yaml" ] || {
  echo "run.sh: expected one of $(ls overlays | tr '\n' ' ')got $overlay" >&2
  exit 2
}
rendered=$(kubectl kustomize "overlays/$overlay") # what cannot be rendered is not applied in part
namespaces=$(printf '%s\n' "$rendered" | awk '/^kind:/ {kind = $2} /^  name:/ && kind == "Namespace" {print $2; kind = ""}')
for namespace in $namespaces; do # a job cannot be changed, only made anew
  kubectl -n "$namespace" delete job topics device --ignore-not-found
done
printf '%s\n' "$rendered" | kubectl apply --server-side --force-conflicts --validate=strict -f -
for namespace in $namespaces; do
  kubectl -n "$namespace" rollout status statefulset/kafka --timeout=600s
  kubectl -n "$namespace" wait job/topics --for=condition=complete --timeout=300s
  for tier in $(kubectl -n "$namespace" get statefulset -l app.kubernetes.io/component -o name); do
    kubectl -n "$namespace" rollout status "$tier" --timeout=300s
  done
  kubectl -n "$namespace" get pods
done
