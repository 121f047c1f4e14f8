from __future__ import annotations

import os
import ssl
from pathlib import Path

import pytest

from branchy.brokers.certificates import authority_file, certificate_file, make_certificates
from branchy.errors import BranchyError

HOSTS = "IP:127.0.0.1,DNS:localhost"


@pytest.fixture
def folder(openssl: None, tmp_path: Path) -> Path:
    make_certificates(tmp_path, ["broker", "edge"], HOSTS)
    return tmp_path


def shake_hands(client: ssl.SSLContext, server: ssl.SSLContext, host: str) -> None:
    """A TLS handshake in memory."""
    up, down = ssl.MemoryBIO(), ssl.MemoryBIO()
    sides = [client.wrap_bio(down, up, server_hostname=host), server.wrap_bio(up, down, server_side=True)]
    for side in (*sides, *sides, *sides):
        try:
            side.do_handshake()
        except ssl.SSLWantReadError:
            continue


def contexts(folder: Path, trusted: Path) -> tuple[ssl.SSLContext, ssl.SSLContext]:
    """A client with the edge's certificate and a server with the broker's; each wants the other's."""
    client = ssl.create_default_context(cafile=authority_file(trusted))
    client.load_cert_chain(certificate_file(folder, "edge"))
    server = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH, cafile=authority_file(folder))
    server.verify_mode = ssl.CERT_REQUIRED
    server.load_cert_chain(certificate_file(folder, "broker"))
    return client, server


@pytest.mark.parametrize("host", ["127.0.0.1", "localhost"])
def test_both_sides_take_each_others_certificate(folder, host):
    shake_hands(*contexts(folder, folder), host)


def test_another_name_and_another_authority_are_refused(folder, tmp_path_factory):
    with pytest.raises(ssl.SSLCertVerificationError, match="IP address mismatch"):
        shake_hands(*contexts(folder, folder), "127.0.0.2")
    other = tmp_path_factory.mktemp("other")
    make_certificates(other, [], HOSTS)
    with pytest.raises(ssl.SSLCertVerificationError, match="certificate verify failed"):
        shake_hands(*contexts(folder, other), "127.0.0.1")


def test_what_is_there_stays_and_nothing_is_readable_by_others(folder):
    before = {file.name: file.read_bytes() for file in folder.iterdir()}
    make_certificates(folder, ["broker", "edge", "fog"], HOSTS)
    after = {file.name: file.read_bytes() for file in folder.iterdir()}
    assert set(after) - set(before) == {"fog.pem"}
    assert {name: after[name] for name in before} == before
    assert {file.stat().st_mode & 0o077 for file in folder.iterdir()} == {0}


def test_without_openssl_it_says_what_to_install(tmp_path, monkeypatch):
    monkeypatch.setenv("PATH", "")
    with pytest.raises(BranchyError, match="with the program 'openssl', which is not here; install it"):
        make_certificates(tmp_path, [], HOSTS)
    assert list(tmp_path.iterdir()) == []


def test_a_failure_of_openssl_is_told_in_one_line_and_leaves_nothing(tmp_path, monkeypatch):
    fake = tmp_path / "bin" / "openssl"
    fake.parent.mkdir()
    fake.write_text("#!/bin/sh\necho first >&2; echo no randomness >&2; exit 1\n")
    fake.chmod(0o700)
    monkeypatch.setenv("PATH", f"{fake.parent}{os.pathsep}{os.environ['PATH']}")
    with pytest.raises(BranchyError, match=r"^openssl could not make a certificate \(no randomness\)$"):
        make_certificates(tmp_path, ["edge"], HOSTS)
    assert list(tmp_path.iterdir()) == [fake.parent]
