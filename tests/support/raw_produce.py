"""Produce a batch that no client library would: one whose compressed records cannot be read.

A bare Produce request (version 3, KIP-98 record batch) over a socket.
"""

from __future__ import annotations

import socket
import struct


def _crc32c(data: bytes) -> int:
    crc = 0xFFFFFFFF
    for byte in data:
        crc ^= byte
        for _ in range(8):
            crc = (crc >> 1) ^ (0x82F63B78 if crc & 1 else 0)
    return crc ^ 0xFFFFFFFF


def _batch(records: bytes, count: int, gzip: bool) -> bytes:
    after_crc = struct.pack(">hiqqqhii", 1 if gzip else 0, count - 1, 1, 1, -1, -1, -1, count) + records
    after_length = struct.pack(">ibI", -1, 2, _crc32c(after_crc)) + after_crc
    return struct.pack(">qi", 0, len(after_length)) + after_length


def produce_batch(brokers: str, topic: str, partition: int, batch: bytes) -> int:
    """Send one batch with acks=1; returns the partition's error code."""
    name = topic.encode()
    body = struct.pack(">hhi", -1, 1, 5000) + struct.pack(">i", 1) + struct.pack(">h", len(name)) + name
    body += struct.pack(">iii", 1, partition, len(batch)) + batch
    request = struct.pack(">hhih", 0, 3, 1, 3) + b"raw" + body
    host, port = brokers.split(",")[0].split(":")
    with socket.create_connection((host, int(port)), timeout=10) as connection:
        connection.sendall(struct.pack(">i", len(request)) + request)
        answer = _read(connection, struct.unpack(">i", _read(connection, 4))[0])
    return struct.unpack_from(">h", answer, 4 + 4 + 2 + len(name) + 4 + 4)[0]


def _read(connection: socket.socket, count: int) -> bytes:
    data = b""
    while len(data) < count:
        more = connection.recv(count - len(data))
        if not more:
            raise ConnectionError("the broker hung up")
        data += more
    return data


def produce_unreadable(brokers: str, topic: str, partition: int, count: int = 1) -> bool:
    """A batch of `count` records whose gzip data is garbage; False when the broker refuses it."""
    return produce_batch(brokers, topic, partition, _batch(b"this is not gzip" * 4, count, gzip=True)) == 0
