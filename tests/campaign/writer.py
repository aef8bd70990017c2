"""What stories are written with: the events of one tenant, and their names."""

from __future__ import annotations

import random
from typing import Any, NamedTuple

import orjson

Event = dict[str, Any]

CUSTOMERS, MERCHANTS, WALLETS = 120, 15, 8


class Name(NamedTuple):
    """Which record: the `index`-th of story `number`; `copy` 0 is the first, 255 the same with another body."""

    number: int
    index: int
    copy: int

    def pack(self) -> int:
        return self.number << 16 | self.index << 8 | self.copy

    @classmethod
    def unpack(cls, packed: int) -> Name:
        return cls(packed >> 16, packed >> 8 & 0xFF, packed & 0xFF)


class Drafted(NamedTuple):
    """A record to publish; `topic` is the short name, `event` None where it is none."""

    name: Name
    topic: str
    key: bytes
    value: bytes
    event: Event | None


class Writer:
    """Writes a story down; all of it is one tenant's."""

    def __init__(self, chance: random.Random, number: int, tenant: str) -> None:
        self.chance = chance
        self.name = f"{number}"
        self.drafted: list[Drafted] = []
        self._number = number
        self._tenant = tenant
        self.customer = f"c{chance.randrange(CUSTOMERS)}"
        self.merchant = f"m{chance.randrange(MERCHANTS)}"
        self.currency = chance.choice(["EUR", "EUR", "EUR", "USD", "JPY"])

    def say(self, topic: str, type_name: str, *, of: int | None = None, key: str | None = None, **data: Any) -> Event:
        """Publish an event; `of` takes the id of an earlier record of the story: one delivery, two bodies."""
        index = len(self.drafted)
        event: Event = {
            "specversion": "1.0",
            "id": f"e{self.name}.{index if of is None else of}",
            "source": "campaign",
            "type": type_name,
            "time": f"2024-{self.chance.randrange(1, 13):02}-{self.chance.randrange(1, 29):02}T10:00:00Z",
            "tenantid": self._tenant,
            "data": data,
        }
        if key is not None:
            event["idempotencykey"] = key
        self._put(topic, orjson.dumps(event), event)
        return event

    def repeat(self, event: Event, topic: str, **changed: Any) -> None:
        """Publish an event once more: as it is, or under another id, or with other data."""
        other = event | changed
        self._put(topic, orjson.dumps(other), other)

    def scribble(self, topic: str, value: bytes) -> None:
        self._put(topic, value, None)

    def _put(self, topic: str, value: bytes, event: Event | None) -> None:
        name = Name(self._number, len(self.drafted), 0)
        self.drafted.append(Drafted(name, topic, self._tenant.encode(), value, event))

    def amount(self, most: int = 9_999) -> int:
        return self.chance.randrange(100, most)

    def shuffle(self) -> None:
        """Let some of it arrive before what it belongs to."""
        self.chance.shuffle(self.drafted)

    # --- what several stories have in common ------------------------------------------------------------------------

    def pay(self, amount: int, **data: Any) -> Event:
        return self.say(
            "payments", "payment.captured.v1", payment_id=f"p{self.name}", amount=amount, currency=self.currency,
            customer_id=self.customer, **data,
        )  # fmt: skip

    def refund(self, suffix: str, amount: int, **data: Any) -> Event:
        return self.say(
            "refunds", "refund.succeeded.v1", refund_id=f"r{self.name}{suffix}", amount=amount,
            currency=self.currency, customer_id=self.customer, **data,
        )  # fmt: skip

    def transfer(self, amount: int) -> Event:
        return self.say(
            "transfers", "transfer.created.v1", transfer_id=f"t{self.name}", amount=amount, currency=self.currency,
            customer_id=self.customer, merchant_id=self.merchant,
        )  # fmt: skip
