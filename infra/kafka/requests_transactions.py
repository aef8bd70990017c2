"""The requests of Kafka's newer transaction protocol (KIP-890), which aiokafka doesn't speak, on its own classes.

`Features` (ApiVersions v3) tells whether a cluster has it. `Produce` (v12) adds its partitions to the transaction
itself. `EndTxn` (v5) gives the epoch of the next transaction.
"""

# aiokafka comes without types: its classes are Any to mypy.
# mypy: disallow-subclassing-any=False

from __future__ import annotations

from collections.abc import Mapping
from io import BytesIO
from typing import Any

from aiokafka.protocol.api import Request, RequestStruct, Response, ResponseHeader_v0
from aiokafka.protocol.types import (
    Boolean,
    CompactArray,
    CompactBytes,
    CompactString,
    Int16,
    Int32,
    Int64,
    Schema,
    TaggedFields,
)

_TEXT = CompactString("utf-8")
_FINALIZED_FEATURES = 2
_FEATURES = CompactArray(("name", _TEXT), ("level_max", Int16), ("level_min", Int16), ("tags", TaggedFields))


class ApiVersionsResponseV3(Response):
    API_KEY = 18
    API_VERSION = 3
    SCHEMA = Schema(
        ("error_code", Int16),
        ("api_versions", CompactArray(("key", Int16), ("min", Int16), ("max", Int16), ("tags", TaggedFields))),
        ("throttle_time_ms", Int32),
        ("tags", TaggedFields),
    )


class ApiVersionsRequestV3(RequestStruct):
    API_KEY = 18
    API_VERSION = 3
    FLEXIBLE_VERSION = True
    RESPONSE_TYPE = ApiVersionsResponseV3
    SCHEMA = Schema(("software_name", _TEXT), ("software_version", _TEXT), ("tags", TaggedFields))

    def parse_response_header(self, read_buffer: BytesIO | bytes) -> ResponseHeader_v0:
        """Its answer is the one that never has tags in its header: who asks may not know them."""
        return ResponseHeader_v0.decode(read_buffer)


class Features(Request[ApiVersionsRequestV3]):
    """What the cluster has agreed on."""

    API_KEY = 18

    def build(self, request_struct_class: type[ApiVersionsRequestV3]) -> ApiVersionsRequestV3:
        return request_struct_class("ledgerstream", "1", {})


def feature_levels(answer: Any) -> Mapping[str, int]:
    """The level of each feature that the cluster has finalized."""
    data = answer.tags.get(_FINALIZED_FEATURES)
    return {} if data is None else {name: level for name, level, _, _ in _FEATURES.decode(BytesIO(data)) or ()}


class ProduceResponseV12(Response):
    API_KEY = 0
    API_VERSION = 12
    SCHEMA = Schema(
        (
            "topics",
            CompactArray(
                ("topic", _TEXT),
                (
                    "partitions",
                    CompactArray(
                        ("partition", Int32),
                        ("error_code", Int16),
                        ("offset", Int64),
                        ("timestamp", Int64),
                        ("log_start_offset", Int64),
                        ("record_errors", CompactArray(("index", Int32), ("message", _TEXT), ("tags", TaggedFields))),
                        ("error_message", _TEXT),
                        ("tags", TaggedFields),
                    ),
                ),
                ("tags", TaggedFields),
            ),
        ),
        ("throttle_time_ms", Int32),
        ("tags", TaggedFields),
    )


class ProduceRequestV12(RequestStruct):
    API_KEY = 0
    API_VERSION = 12
    FLEXIBLE_VERSION = True
    RESPONSE_TYPE = ProduceResponseV12
    SCHEMA = Schema(
        ("transactional_id", _TEXT),
        ("required_acks", Int16),
        ("timeout_ms", Int32),
        (
            "topics",
            CompactArray(
                ("topic", _TEXT),
                (
                    "partitions",
                    CompactArray(("partition", Int32), ("records", CompactBytes), ("tags", TaggedFields)),
                ),
                ("tags", TaggedFields),
            ),
        ),
        ("tags", TaggedFields),
    )


class Produce(Request[ProduceRequestV12]):
    """One batch a partition; the broker adds the partitions to the transaction."""

    API_KEY = 0

    def __init__(self, transactional_id: str, timeout_ms: int, records: Mapping[tuple[str, int], bytes]) -> None:
        topics: dict[str, list[tuple[int, bytes, dict[int, bytes]]]] = {}
        for (topic, partition), batch in records.items():
            topics.setdefault(topic, []).append((partition, batch, {}))
        self._fields: tuple[Any, ...] = (
            transactional_id,
            -1,
            timeout_ms,
            [(topic, of, {}) for topic, of in topics.items()],
            {},
        )

    def build(self, request_struct_class: type[ProduceRequestV12]) -> ProduceRequestV12:
        return request_struct_class(*self._fields)


class EndTxnResponseV5(Response):
    API_KEY = 26
    API_VERSION = 5
    SCHEMA = Schema(
        ("throttle_time_ms", Int32),
        ("error_code", Int16),
        ("producer_id", Int64),
        ("producer_epoch", Int16),
        ("tags", TaggedFields),
    )


class EndTxnRequestV5(RequestStruct):
    API_KEY = 26
    API_VERSION = 5
    FLEXIBLE_VERSION = True
    RESPONSE_TYPE = EndTxnResponseV5
    SCHEMA = Schema(
        ("transactional_id", _TEXT),
        ("producer_id", Int64),
        ("producer_epoch", Int16),
        ("commit", Boolean),
        ("tags", TaggedFields),
    )


class EndTxn(Request[EndTxnRequestV5]):
    """Commit, and get the producer id and epoch of the next transaction."""

    API_KEY = 26

    def __init__(self, transactional_id: str, producer_id: int, producer_epoch: int, *, commit: bool) -> None:
        self._fields: tuple[Any, ...] = (transactional_id, producer_id, producer_epoch, commit, {})

    def build(self, request_struct_class: type[EndTxnRequestV5]) -> EndTxnRequestV5:
        return request_struct_class(*self._fields)
