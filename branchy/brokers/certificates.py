"""Throw-away certificates for a Kafka on this machine, made by the `openssl` program.

An authority that lives in one folder signs a certificate a name. A certificate and its key are in
one PEM file, as Kafka's own PEM stores want them; librdkafka takes that file for both.
"""

from __future__ import annotations

import secrets
import shutil
import subprocess
import tempfile
from collections.abc import Sequence
from pathlib import Path

from branchy.errors import BranchyError

AUTHORITY = "ca"
DAYS = 825
"""How long they are valid: the longest that every TLS library takes for a server's."""

_NEW_KEY = ("-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes")


def authority_file(folder: Path) -> Path:
    """The authority's certificate, which clients are given."""
    return folder / f"{AUTHORITY}.pem"


def certificate_file(folder: Path, name: str) -> Path:
    """The key and certificate of a name."""
    return folder / f"{name}.pem"


def make_certificates(folder: Path, names: Sequence[str], hosts: str) -> None:
    """Make the authority and the certificates that are not in the folder yet.

    Args:
        folder: for certificates and keys; nobody else may read it.
        names: each becomes a certificate's common name (CN).
        hosts: of those that serve, as X.509 writes them, such as `IP:127.0.0.1,DNS:localhost`.

    Raises:
        BranchyError: `openssl` is not there, or fails.
    """
    if not authority_file(folder).exists():
        _make_authority(folder)
    for name in names:
        if not certificate_file(folder, name).exists():
            _issue(folder, name, hosts)


def _make_authority(folder: Path) -> None:
    with tempfile.TemporaryDirectory(dir=folder) as temporary:
        key, certificate = Path(temporary) / "key", Path(temporary) / "certificate"
        _openssl(
            *("req", "-x509", *_NEW_KEY, "-keyout", key, "-out", certificate, "-days", DAYS),
            *("-subj", f"/CN=branchy throw-away authority {secrets.token_hex(4)}"),
            *("-addext", "keyUsage=critical,keyCertSign,cRLSign"),
        )
        key.rename(folder / f"{AUTHORITY}.key")
        certificate.rename(authority_file(folder))


def _issue(folder: Path, name: str, hosts: str) -> None:
    with tempfile.TemporaryDirectory(dir=folder) as temporary:
        key, request, extensions, signed, both = (Path(temporary) / n for n in ("key", "csr", "ext", "signed", "both"))
        _openssl("req", "-new", *_NEW_KEY, "-keyout", key, "-out", request, "-subj", f"/CN={name}")
        extensions.write_text(
            f"subjectAltName={hosts}\nbasicConstraints=critical,CA:FALSE\nkeyUsage=critical,digitalSignature\n"
            "extendedKeyUsage=serverAuth,clientAuth\n",
            encoding="ascii",
        )
        _openssl(
            *("x509", "-req", "-in", request, "-out", signed, "-days", DAYS, "-extfile", extensions),
            *("-CA", authority_file(folder), "-CAkey", folder / f"{AUTHORITY}.key"),
            *("-set_serial", str(secrets.randbits(120))),
        )
        both.touch(0o600)
        both.write_bytes(key.read_bytes() + signed.read_bytes())
        both.rename(certificate_file(folder, name))


def _openssl(*arguments: object) -> None:
    program = shutil.which("openssl")
    if program is None:
        raise BranchyError(
            "--tls makes its certificates with the program 'openssl', which is not here; install it "
            "(Debian and Ubuntu: apt-get install openssl), or start the broker without --tls"
        )
    command = [program, *map(str, arguments)]
    done = subprocess.run(
        command, stdin=subprocess.DEVNULL, capture_output=True, text=True, errors="replace", check=False, umask=0o077
    )
    if done.returncode != 0:
        words = [line for line in done.stderr.splitlines() if line.strip()] or [f"exit code {done.returncode}"]
        raise BranchyError(f"openssl could not make a certificate ({words[-1][:300]})")
