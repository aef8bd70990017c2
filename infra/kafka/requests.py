"""Two requests that aiokafka doesn't speak in the version we need, on its own request classes.

`MetadataWithIds` (Metadata v10) tells a topic's id, which changes when a topic is deleted and made again.
`NextProducerEpoch` (InitProducerId v4) carries the producer id and epoch that we think we have.
"""

# aiokafka comes without types: its classes are Any to mypy.
# mypy: disallow-subclassing-any=False

from __future__ import annotations

from io import BytesIO
from uuid import UUID

from aiokafka.protocol.abstract import AbstractType
from aiokafka.protocol.api import Request, RequestStruct, Response
from aiokafka.protocol.types import Boolean, CompactArray, CompactString, Int16, Int32, Int64, Schema, TaggedFields

NO_TOPIC_ID = UUID(int=0)


class Uuid(AbstractType[UUID]):
    """Kafka's sixteen bytes of a topic id."""

    @classmethod
    def encode(cls, value: UUID) -> bytes:
        return value.bytes

    @classmethod
    def decode(cls, data: BytesIO) -> UUID:
        return UUID(bytes=data.read(16))


_TEXT = CompactString("utf-8")


class MetadataResponseV10(Response):
    API_KEY = 3
    API_VERSION = 10
    SCHEMA = Schema(
        ("throttle_time_ms", Int32),
        (
            "brokers",
            CompactArray(("node_id", Int32), ("host", _TEXT), ("port", Int32), ("rack", _TEXT), ("tags", TaggedFields)),
        ),
        ("cluster_id", _TEXT),
        ("controller_id", Int32),
        (
            "topics",
            CompactArray(
                ("error_code", Int16),
                ("topic", _TEXT),
                ("topic_id", Uuid),
                ("is_internal", Boolean),
                (
                    "partitions",
                    CompactArray(
                        ("error_code", Int16),
                        ("partition", Int32),
                        ("leader", Int32),
                        ("leader_epoch", Int32),
                        ("replicas", CompactArray(Int32)),
                        ("isr", CompactArray(Int32)),
                        ("offline_replicas", CompactArray(Int32)),
                        ("tags", TaggedFields),
                    ),
                ),
                ("authorized_operations", Int32),
                ("tags", TaggedFields),
            ),
        ),
        ("authorized_operations", Int32),
        ("tags", TaggedFields),
    )


class MetadataRequestV10(RequestStruct):
    API_KEY = 3
    API_VERSION = 10
    FLEXIBLE_VERSION = True
    RESPONSE_TYPE = MetadataResponseV10
    SCHEMA = Schema(
        ("topics", CompactArray(("topic_id", Uuid), ("topic", _TEXT), ("tags", TaggedFields))),
        ("allow_auto_topic_creation", Boolean),
        ("include_cluster_authorized_operations", Boolean),
        ("include_topic_authorized_operations", Boolean),
        ("tags", TaggedFields),
    )


class MetadataWithIds(Request[MetadataRequestV10]):
    """What a broker knows of these topics, their ids included; makes none of them."""

    API_KEY = 3

    def __init__(self, topics: list[str]) -> None:
        self._topics = topics

    def build(self, request_struct_class: type[MetadataRequestV10]) -> MetadataRequestV10:
        return request_struct_class([(NO_TOPIC_ID, topic, {}) for topic in self._topics], False, False, False, {})


class InitProducerIdResponseV4(Response):
    API_KEY = 22
    API_VERSION = 4
    SCHEMA = Schema(
        ("throttle_time_ms", Int32),
        ("error_code", Int16),
        ("producer_id", Int64),
        ("producer_epoch", Int16),
        ("tags", TaggedFields),
    )


class InitProducerIdRequestV4(RequestStruct):
    API_KEY = 22
    API_VERSION = 4
    FLEXIBLE_VERSION = True
    RESPONSE_TYPE = InitProducerIdResponseV4
    SCHEMA = Schema(
        ("transactional_id", _TEXT),
        ("transaction_timeout_ms", Int32),
        ("producer_id", Int64),
        ("producer_epoch", Int16),
        ("tags", TaggedFields),
    )


class NextProducerEpoch(Request[InitProducerIdRequestV4]):
    """Ask for the epoch after this one; refused if it isn't ours any more."""

    API_KEY = 22

    def __init__(
        self, transactional_id: str, *, transaction_timeout_ms: int, producer_id: int, producer_epoch: int
    ) -> None:
        self._fields = (transactional_id, transaction_timeout_ms, producer_id, producer_epoch)

    def build(self, request_struct_class: type[InitProducerIdRequestV4]) -> InitProducerIdRequestV4:
        return request_struct_class(*self._fields, {})
