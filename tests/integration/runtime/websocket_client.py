"""A small WebSocket client on a replica's socket."""

from __future__ import annotations

import functools
import os
import struct

KEY = b"dGhlIHNhbXBsZSBub25jZQ=="


class Socket:
    """One connection; its handshake is sent at once."""

    def __init__(self, replica, path, *headers):
        self.connection = replica.connect()
        lines = [
            f"GET {path} HTTP/1.1",
            "host: r",
            "fngw-root-path: /tested",
            "connection: Upgrade",
            "upgrade: websocket",
            "sec-websocket-version: 13",
            f"sec-websocket-key: {KEY.decode()}",
            *headers,
        ]
        self.connection.sendall("\r\n".join([*lines, "", ""]).encode())
        self.data = b""

    @functools.cached_property
    def head(self):
        """The head of the answer, waited for."""
        return self.until(b"\r\n\r\n")

    def until(self, mark):
        while mark not in self.data:
            self.more()
        found, _, self.data = self.data.partition(mark)
        return found

    def more(self):
        data = self.connection.recv(65536)
        assert data, "the connection ended"
        self.data += data

    def send(self, opcode, payload, final=True):
        key = os.urandom(4)
        masked = bytes(b ^ key[i % 4] for i, b in enumerate(payload))
        size = bytes([0x80 | len(payload)]) if len(payload) < 126 else b"\xfe" + struct.pack(">H", len(payload))
        self.connection.sendall(bytes([(0x80 if final else 0) | opcode]) + size + key + masked)

    def receive(self):
        """Return the next frame after the head: its opcode and payload."""
        assert self.head
        while len(self.data) < 2 or len(self.data) < 4 + self.data[1]:
            if len(self.data) >= 2 and len(self.data) >= 2 + self.data[1] and self.data[1] < 126:
                break
            self.more()
        opcode, size, start = self.data[0] & 15, self.data[1], 2
        if size == 126:
            (size,) = struct.unpack_from(">H", self.data, 2)
            start = 4
            while len(self.data) < start + size:
                self.more()
        payload, self.data = self.data[start : start + size], self.data[start + size :]
        return opcode, payload
