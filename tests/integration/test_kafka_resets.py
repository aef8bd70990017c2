"""What uvloop makes of a connection that was reset; asyncio, on which tests run, never shows it."""

from __future__ import annotations

import asyncio
import socket
import struct

import uvloop
from aiokafka.conn import create_conn
from aiokafka.errors import KafkaConnectionError
from aiokafka.protocol.metadata import MetadataRequest

import infra.kafka.connection  # noqa: F401 - whoever speaks to Kafka imports it
from infra.devstack.places import free_ports
from tests.campaign.proxy import Proxy

_AT_ONCE = struct.pack("ii", 1, 0)


async def test_a_write_right_after_a_reset_fails_as_on_a_broken_connection(kafka_bootstrap: str) -> None:
    faults = await asyncio.to_thread(lambda: uvloop.run(_written_until_noticed(int(kafka_bootstrap.split(":")[1]))))
    # One: with it aiokafka knows that the connection is gone.
    assert [type(fault) for fault in faults] == [KafkaConnectionError]


async def _written_until_noticed(kafka_port: int) -> list[Exception]:
    """What writes raise from the reset on until aiokafka has noticed it."""
    (port,) = free_ports(1)
    proxy = Proxy(port, kafka_port)
    await proxy.start()
    try:
        connection = await create_conn("127.0.0.1", port, request_timeout_ms=5_000)
        for near, _ in proxy._pairs:
            near.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _AT_ONCE)
        proxy.drop_all()
        faults: list[Exception] = []
        async with asyncio.timeout(10):
            while connection.connected():
                await asyncio.sleep(0)
                faults += _written(connection)
        return faults
    finally:
        await proxy.stop()


def _written(connection: object) -> list[Exception]:
    """What a write raises; nothing is written before the connection closes."""
    writer = connection._writer  # type: ignore[attr-defined]
    if writer is None or not writer.transport.is_closing():
        return []
    try:
        connection.send(MetadataRequest([])).close()  # type: ignore[attr-defined]
    except Exception as fault:
        return [fault]
    return []
