"""Produce what no client library would: a batch that cannot be read or expands a thousandfold, names that are no text.

A bare Produce request (version 7, the first to take zstd; KIP-98 record batch) over a socket.
"""

from __future__ import annotations

import socket
import struct
import time
import zlib
from collections.abc import Callable, Sequence
from typing import Literal

Codec = Literal["gzip", "zstd"]
CODECS: dict[Codec, int] = {"gzip": 1, "zstd": 4}
BLOCK_BYTES = 128 * 1024
LEADER_WAIT_S = 10.0
NO_LEADER = frozenset({3, 5, 6})
"""Unknown topic or partition, no leader, not the leader."""


def _crc_table() -> list[int]:
    table = []
    for crc in range(256):
        for _ in range(8):
            crc = (crc >> 1) ^ (0x82F63B78 if crc & 1 else 0)
        table.append(crc)
    return table


CRC_TABLE = _crc_table()


def _crc32c(data: bytes) -> int:
    crc = 0xFFFFFFFF
    for byte in data:
        crc = (crc >> 8) ^ CRC_TABLE[(crc ^ byte) & 0xFF]
    return crc ^ 0xFFFFFFFF


def _batch(records: bytes, count: int, codec: Codec | None) -> bytes:
    after_crc = struct.pack(">hiqqqhii", CODECS[codec] if codec else 0, count - 1, 1, 1, -1, -1, -1, count) + records
    after_length = struct.pack(">ibI", -1, 2, _crc32c(after_crc)) + after_crc
    return struct.pack(">qi", 0, len(after_length)) + after_length


def produce_batch(brokers: str, topic: str, partition: int, batch: bytes) -> int:
    """Send one batch with acks=1; returns the partition's error code. A new topic's leader is waited for."""
    until_s = time.monotonic() + LEADER_WAIT_S
    while (code := _produce(brokers, topic, partition, batch)) in NO_LEADER and time.monotonic() < until_s:
        time.sleep(0.05)
    return code


def _produce(brokers: str, topic: str, partition: int, batch: bytes) -> int:
    name = topic.encode()
    body = struct.pack(">hhi", -1, 1, 20_000) + struct.pack(">i", 1) + struct.pack(">h", len(name)) + name
    body += struct.pack(">iii", 1, partition, len(batch)) + batch
    request = struct.pack(">hhih", 0, 7, 1, 3) + b"raw" + body
    host, port = brokers.split(",")[0].split(":")
    with socket.create_connection((host, int(port)), timeout=30) as connection:
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
    return produce_batch(brokers, topic, partition, _batch(b"this is not gzip" * 4, count, "gzip")) == 0


def produce_named(brokers: str, topic: str, partition: int, names: Sequence[bytes], value: bytes) -> None:
    """One record whose headers have these names, of any bytes."""
    record = b"\0\0\0" + _zigzag(-1) + _zigzag(len(value)) + value + _zigzag(len(names))
    record += b"".join(_zigzag(len(name)) + name + _zigzag(1) + b"v" for name in names)
    assert produce_batch(brokers, topic, partition, _batch(_zigzag(len(record)) + record, 1, None)) == 0


def bomb(codec: Codec, size_bytes: int, count: int = 1) -> bytes:
    """A batch of well-formed records; the first one's value is so many zeros, those of the others are empty."""
    after = struct.pack("bbbb", 0, 0, 0, _zigzag(-1)[0]) + _zigzag(size_bytes)
    before = _zigzag(len(after) + size_bytes + 1) + after
    others = b"".join(map(_empty_record, range(1, count)))
    return _batch(_SHORTEN[codec](before, size_bytes, others), count, codec)


def _empty_record(number: int) -> bytes:
    record = b"\0\0" + _zigzag(number) + _zigzag(-1) + b"\0\0"
    return _zigzag(len(record)) + record


def _zigzag(number: int) -> bytes:
    """A varint, as Kafka writes it."""
    number = (number << 1) ^ (number >> 63)
    out = bytearray()
    while number > 0x7F:
        out.append(number & 0x7F | 0x80)
        number >>= 7
    return bytes([*out, number])


def _gzip(before: bytes, zeros: int, others: bytes) -> bytes:
    """The bytes, the zeros, the zero that is the record's count of headers, and what follows."""
    deflate = zlib.compressobj(9, wbits=31)
    parts = [deflate.compress(before)]
    parts += [deflate.compress(bytes(min(BLOCK_BYTES, zeros + 1 - done))) for done in range(0, zeros + 1, BLOCK_BYTES)]
    return b"".join(parts) + deflate.compress(others) + deflate.flush()


def _zstd(before: bytes, zeros: int, others: bytes) -> bytes:
    """The same as a frame (RFC 8878) of blocks that say no more than: so many times this byte."""
    blocks = [(0, len(before), before)]
    blocks += [(1, min(BLOCK_BYTES, zeros + 1 - done), b"\0") for done in range(0, zeros + 1, BLOCK_BYTES)]
    if others:
        blocks.append((0, len(others), others))
    frame = b"\x28\xb5\x2f\xfd\x00\x38"  # no content size, no checksum, a window of 128 KiB
    for number, (kind, size, content) in enumerate(blocks):
        last = number == len(blocks) - 1
        frame += (last | kind << 1 | size << 3).to_bytes(3, "little") + content
    return frame


_SHORTEN: dict[Codec, Callable[[bytes, int, bytes], bytes]] = {"gzip": _gzip, "zstd": _zstd}
