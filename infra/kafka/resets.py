"""A connection that the broker's side has reset fails as any broken one does: here uvloop and aiokafka don't agree.

From a reset until aiokafka hears of it, a write raises RuntimeError under uvloop; under asyncio it is ignored, and what
aiokafka expects is OSError. The task that keeps its metadata dies of it and says nothing. Without it a consumer never
finds its coordinator again: it reads nothing any more, and when it is told to stop it waits for ever.
"""

from __future__ import annotations

from functools import wraps
from typing import Any

from aiokafka.conn import AIOKafkaConnection, CloseReason
from aiokafka.errors import KafkaConnectionError


def fail_as_broken() -> None:
    """Let every write to a connection that is gone raise KafkaConnectionError, from now on."""
    for name in ("send", "_send_sasl_token"):
        setattr(AIOKafkaConnection, name, _failing_as_broken(getattr(AIOKafkaConnection, name)))


def _failing_as_broken(write: Any) -> Any:
    @wraps(write)
    def write_or_fail(self: AIOKafkaConnection, *arguments: Any, **named: Any) -> Any:
        try:
            return write(self, *arguments, **named)
        except NotImplementedError:
            # The broker is older than the request: nothing was written.
            raise
        except RuntimeError as fault:
            self.close(reason=CloseReason.CONNECTION_BROKEN)
            raise KafkaConnectionError(f"Connection at {self.host}:{self.port} broken: {fault}") from fault

    return write_or_fail
