#!/bin/sh
# Deletes what run.sh applied. The brokers' disks stay, and with them topics and offsets, unless told:
#   sh deploy/k8s/delete.sh [OVERLAY [--data]]
set -eu
cd "$(dirname "$0")"
overlay=${1:-local}
data=${2:-}
case "$data" in "" | --data) ;; *)
  echo "delete.sh: expected --data or nothing, got $data" >&2
  exit 2
  ;;
esac
[ -f "overlays/$overlay/kustomization.yaml" ] || {
  echo "delete.sh: expected one of $(ls overlays | tr '\n' ' ')got $overlay" >&2
  exit 2
}
rendered=$(kubectl kustomize "overlays/$overlay")
if [ "$data" != --data ]; then # the claims on the disks are in the namespaces, which therefore stay
  rendered=$(printf '%s\n' "$rendered" | awk 'BEGIN {RS = "---\n"; ORS = "---\n"} !/(^|\n)kind: Namespace\n/')
fi
printf '%s\n' "$rendered" | kubectl delete --ignore-not-found --wait -f -
