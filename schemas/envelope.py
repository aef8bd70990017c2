"""The CloudEvents envelope, as publishers send it and as we do."""

from __future__ import annotations

from datetime import datetime
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, PlainValidator, WithJsonSchema

from schemas.fields import TIME_PATTERN, Id, Instant, Maybe, TenantId, Wire, parse_instant

SPEC_VERSION = "1.0"
CONTENT_TYPE = "application/cloudevents+json"
TRACEPARENT_PATTERN = r"^[0-9a-f]{2}-[0-9a-f]{32}-[0-9a-f]{16}-[0-9a-f]{2}$"


class Envelope(BaseModel):
    """What is said about an event around its data. Attributes that we don't know are ignored, null ones are unset."""

    model_config = ConfigDict(strict=True, frozen=True, extra="ignore")

    specversion: Literal["1.0"]
    id: Annotated[Id, Field(description="With `source` it names this delivery.")]
    source: Annotated[Id, Field(description="Who published it, as a URI reference.")]
    type: Annotated[Id, Field(description="What happened, with its version.")]
    time: Annotated[
        datetime,
        PlainValidator(parse_instant),
        WithJsonSchema({"type": "string", "format": "date-time", "pattern": TIME_PATTERN}),
        Field(description="When it happened, not when it is sent: RFC 3339 with an offset, 1970 to 2199."),
    ]
    tenantid: TenantId
    idempotencykey: Annotated[Id | None, Field(description="A key of the publisher's own for the same event.")] = None
    traceparent: Annotated[
        Any,
        WithJsonSchema({}),
        Field(description="W3C trace context, carried through to every output; a malformed one is ignored."),
    ] = None
    data: Annotated[Any, WithJsonSchema({"type": "object"})]


ATTRIBUTES = frozenset(Envelope.model_fields) - {"data"}


class OutputEnvelope(Wire):
    """What the ledger says about an output around its data. What is absent is left out."""

    specversion: Literal["1.0"]
    id: Annotated[
        Id,
        Field(
            description="`{epoch}-{shard}-{seq}`: the same output never has two, two never have the same. "
            "A seal's begins with `seal-`."
        ),
    ]
    source: Literal["ledgerstream"]
    type: Id
    time: Annotated[Instant, Field(description="When the ledger recorded it.")]
    tenantid: Annotated[Maybe[TenantId], Field(description="On all but seals.")] = None
    traceparent: Annotated[
        Maybe[str], Field(pattern=TRACEPARENT_PATTERN, description="W3C trace context of its cause, unchanged.")
    ] = None
    datacontenttype: Maybe[Literal["application/json"]] = None
    data: Annotated[dict[str, Any], WithJsonSchema({"type": "object"})]
