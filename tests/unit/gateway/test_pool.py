"""Connections to a replica that leaves the table while it is being connected to."""

from __future__ import annotations

import asyncio

import pytest

from fngw_gateway.proxy.pool import Pool


@pytest.fixture
async def replica(tmp_path):
    """A socket that lets everybody connect: its path, and for each connection, whether it was closed unused."""
    ends: asyncio.Queue[bytes] = asyncio.Queue()

    async def serve(reader, writer):
        ends.put_nowait(await reader.read())
        writer.close()

    path = str(tmp_path / "http.sock")
    server = await asyncio.start_unix_server(serve, path)
    yield path, ends
    server.close()
    await server.wait_closed()


async def test_a_replica_that_left_meanwhile_is_not_sent_a_request(replica):
    path, ends = replica
    pool = Pool(path)
    connecting = asyncio.ensure_future(pool.connect())
    await asyncio.sleep(0)
    pool.retire()
    with pytest.raises(ConnectionAbortedError):
        await connecting
    assert await ends.get() == b""


async def test_a_replica_that_stays_is(replica):
    path, ends = replica
    pool = Pool(path)
    connection = await pool.connect()
    pool.retire()
    connection.begin(head_only=False)
    connection.write(b"GET / HTTP/1.1\r\n\r\n", last=True)
    connection.close()
    assert (await ends.get()).startswith(b"GET / ")
