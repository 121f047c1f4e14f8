#!/bin/sh
# Makes what the tls overlay needs and git never sees, in secrets/ beside this file: an authority, a certificate each for
# the brokers and every client, and passwords. What is there is kept. With an authority of your own, put its ca.pem and
# NAME.pem (certificate and PKCS#8 key in one file, CN=NAME) there instead.
#   sh deploy/k8s/overlays/tls/make_secrets.sh [NAMESPACE [MORE-NAMES-OF-THE-BROKERS]]     such as branchy DNS:kafka.example
set -eu
namespace=${1:-branchy}
more=${2:+,$2}
days=825
command -v openssl >/dev/null || { echo "make_secrets.sh: expected openssl, found none: install it" >&2; exit 1; }
umask 077
mkdir -p "$(dirname "$0")/secrets"
cd "$(dirname "$0")/secrets"

quietly() { # its words only if it fails
  openssl "$@" 2>openssl.log || { cat openssl.log >&2; exit 1; }
  rm openssl.log
}

if ! [ -s ca.pem ]; then
  quietly req -x509 -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -days "$days" -subj "/CN=branchy" \
    -addext "basicConstraints=critical,CA:TRUE,pathlen:0" -addext "keyUsage=critical,keyCertSign,cRLSign" \
    -keyout ca.key -out ca.pem.partial
  mv ca.pem.partial ca.pem
fi

hosts=""
for number in 0 1 2; do
  hosts="$hosts,DNS:kafka-$number.kafka,DNS:kafka-$number.kafka.$namespace.svc"
done

certificate() { # NAME MORE-EXTENSIONS: NAME.pem with its certificate and its key
  [ -s "$1.pem" ] && return
  quietly req -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -subj "/CN=$1" -keyout "$1.key" -out "$1.csr"
  printf '%s\n' "extendedKeyUsage=serverAuth,clientAuth" "authorityKeyIdentifier=keyid" "$2" >"$1.extensions"
  quietly x509 -req -in "$1.csr" -CA ca.pem -CAkey ca.key -set_serial "0x$(openssl rand -hex 16)" -days "$days" \
    -extfile "$1.extensions" -out "$1.crt"
  cat "$1.crt" "$1.key" >"$1.pem.partial"
  rm "$1.csr" "$1.extensions" "$1.crt" "$1.key"
  mv "$1.pem.partial" "$1.pem"
}

certificate broker "subjectAltName=${hosts#,}$more"
for name in operator device edge fog cloud; do
  certificate "$name" ""
done
for name in broker operator device edge fog cloud; do
  [ -s "$name.password" ] || openssl rand -hex 24 | tr -d '\n' >"$name.password"
  printf -- '--add-scram\nSCRAM-SHA-512=[name=%s,password=%s]\n' "$name" "$(cat "$name.password")"
done >format.arguments
echo "in $(pwd): an authority, certificates and passwords"
