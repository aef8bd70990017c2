"""What the benchmark of decisions sends: cards with credit in every shard, requests, and payments beside them."""

from __future__ import annotations

import itertools
import random
from collections.abc import Iterator
from datetime import UTC, datetime
from typing import Any
from uuid import UUID

import orjson

from infra.kafka.partitioner import partition_of
from infra.outputs import rfc3339

CARDS = 200
PROVIDER = "bench"

Message = tuple[str, str, bytes]
"""The tenant, the id, and the value."""


class Load:
    """Events with ids of their own, each the next tenant's in turn."""

    def __init__(self, shards: int) -> None:
        self.tenants = _a_tenant_each(shards)
        self._numbers = itertools.count(1)
        self._random = random.Random(1)

    def cards(self) -> Iterator[Message]:
        """A category that every payment is of, and so many cards with lines of credit that don't run out."""
        for tenant in self.tenants:
            category: dict[str, Any] = {"code": "any", "name": "Anything", "match": [{}]}
            yield self._event(tenant, "expense_category.create.v1", category, keyed=True)
            for number in range(CARDS):
                owner = {"owner_type": "employee", "owner_ref": str(UUID(int=number + 1))}
                line: dict[str, Any] = {"line_of_credit_id": f"line-{number}", "expense_category": "any"}
                line |= {"currency": "EUR", "credits_limit": 10**15, **owner}
                yield self._event(tenant, "line_of_credit.create.v1", line, keyed=True)
                yield self._event(tenant, "card.assign.v1", {"card_id": f"card-{number}", **owner}, keyed=True)

    def request(self) -> Message:
        """One request for an authorization; its id is its external id, too."""
        merchant = {"merchant_id": "m1", "acquirer_id": "a1", "mcc": "5411", "name": "A grocery", "country": "FRA"}
        number = next(self._numbers)
        data = {
            "provider": PROVIDER,
            "external_id": f"evt-{number}",
            "amount": self._random.randint(100, 20_000),
            "currency": "EUR",
            "card_id": f"card-{self._random.randrange(CARDS)}",
            "merchant": merchant,
        }
        return self._event(self._next_tenant(number), "authorization.requested.v1", data, number=number)

    def payment(self) -> Message:
        """One payment of one of ten thousand customers."""
        number = next(self._numbers)
        data = {
            "payment_id": f"pay-{number}",
            "amount": self._random.randint(100, 100_000),
            "currency": "EUR",
            "customer_id": f"cus-{self._random.randrange(10_000)}",
            "fees": 30,
        }
        return self._event(self._next_tenant(number), "payment.captured.v1", data, number=number)

    def _next_tenant(self, number: int) -> str:
        return self.tenants[number % len(self.tenants)]

    def _event(
        self, tenant: str, kind: str, data: dict[str, Any], *, keyed: bool = False, number: int | None = None
    ) -> Message:
        event_id = f"evt-{next(self._numbers) if number is None else number}"
        event = {
            "specversion": "1.0",
            "id": event_id,
            "source": "bench",
            "type": kind,
            "time": rfc3339(datetime.now(UTC)),
            "tenantid": tenant,
            "data": data,
        }
        if keyed:
            event["idempotencykey"] = event_id
        return tenant, event_id, orjson.dumps(event)


def _a_tenant_each(shards: int) -> list[str]:
    """One tenant for each shard, by the hash that puts it there."""
    found: dict[int, str] = {}
    for number in itertools.count():
        name = f"tenant-{number}"
        found.setdefault(partition_of(name.encode(), shards), name)
        if len(found) == shards:
            break
    return [found[shard] for shard in range(shards)]
