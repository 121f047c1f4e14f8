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
namespaces=$(printf '%s\n' "$rendered" | awk '/^kind:/ {kind = $2} /^  name:/ && kind == "Namespace" {print $2; kind = ""}')
if [ "$data" != --data ]; then # the claims on the disks are in the namespaces, which therefore stay
  rendered=$(printf '%s\n' "$rendered" | awk '
    function end() { if (!is_namespace) printf "%s---\n", object; object = ""; is_namespace = 0 }
    $0 == "---" {end(); next}
    $0 == "kind: Namespace" {is_namespace = 1}
    {object = object $0 "\n"}
    END {end()}')
fi
for namespace in $namespaces; do # tiers settle what they have while their brokers are there: those wait for the pods
  kubectl -n "$namespace" delete statefulset -l app.kubernetes.io/part-of=branchy,app.kubernetes.io/component \
    --cascade=foreground --wait
done
printf '%s\n' "$rendered" | kubectl delete --ignore-not-found --wait -f -
[ "$data" != --data ] || exit 0
for namespace in $namespaces; do # those of former settings and secrets, which other names took the place of
  kubectl -n "$namespace" delete configmap,secret -l app.kubernetes.io/part-of=branchy
done
