"""Records that are no events: what buggy or hostile producers really send."""

from __future__ import annotations

from typing import Any

import orjson

from consumers.demo_scribe import SOURCE, Scribe

_DATA = {"payment_id": "pay-odd", "amount": 1999, "currency": "EUR", "customer_id": "ada"}


def publish_what_is_no_event(scribe: Scribe, tenant: str) -> None:
    """Publish one record of each kind, and reckon the dead letter that it must become."""

    def envelope(number: int, **changed: Any) -> dict[str, Any]:
        return {
            "specversion": "1.0",
            "id": f"odd-{number}",
            "source": SOURCE,
            "type": "payment.captured.v1",
            "time": scribe.now.isoformat(),
            "tenantid": tenant,
            "data": _DATA,
        } | changed

    def send(value: bytes | None, *, topic: str = "payments", code: str = "malformed") -> None:
        scribe.publish_bytes(topic, tenant, value, code=code)

    send(b"pay-odd;19.99;EUR;ada")
    send(b"\xff\xfe" + "pay-odd".encode("utf-16-le"))
    send(None)
    send(orjson.dumps(envelope(1, data=_DATA | {"amount": 19.99})))
    send(orjson.dumps(envelope(2)).replace(b'"amount":1999', b'"amount":1999,"amount":199900'))
    send(orjson.dumps(envelope(3, time=1_767_225_600)))
    send(orjson.dumps(envelope(4, data=_DATA | {"tip": 100})))
    send(orjson.dumps(envelope(5, type="payment.imagined.v1")), code="unknown_type")
    send(orjson.dumps(envelope(6)), topic="refunds", code="wrong_topic")
    send(orjson.dumps(envelope(7, data=_DATA | {"description": "x" * 1_200_000})), code="too_large")
