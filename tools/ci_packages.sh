#!/bin/sh
# System packages that the tests need and a new CI machine may lack: Java and Maven, for the real Apache Kafka,
# openssl, for its certificates, kcat, as a client that is not branchy, and Go, which builds Toxiproxy and kustomize.
set -eu
missing=""
command -v java >/dev/null 2>&1 || missing="$missing default-jre-headless"
command -v mvn >/dev/null 2>&1 || missing="$missing maven"
command -v openssl >/dev/null 2>&1 || missing="$missing openssl"
command -v kcat >/dev/null 2>&1 || missing="$missing kcat"
command -v go >/dev/null 2>&1 || missing="$missing golang-go"
[ -z "$missing" ] && exit 0
if ! command -v apt-get >/dev/null 2>&1; then
  echo "please install:$missing" >&2
  exit 1
fi
apt-get -qq update
# shellcheck disable=SC2086  (one word a package)
DEBIAN_FRONTEND=noninteractive apt-get -qq install -y --no-install-recommends $missing
