"""What is published: stories of one to a few events, each a function of the seed and its number alone.

A record is named by its story's number, its place in it and which copy it is; so whoever holds the name can write the
event again, and nobody has to keep a million of them.
"""

from __future__ import annotations

import random
from collections.abc import Callable
from typing import Any, NamedTuple

import orjson

Event = dict[str, Any]

TENANTS = 6
STORIES_A_GENERATION = 12_000
"""After so many stories there are new tenants: what is known of the old ones can be let go."""
CUSTOMERS, MERCHANTS, WALLETS = 120, 15, 8
_NOT_EVENTS = (b"not an event", b"{", b'{"specversion": "1.0"}', b"\xff\xfe", b"[]")


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


def story(seed: int, number: int) -> list[Drafted]:
    """The records of a story, in the order in which they are published."""
    chance = random.Random(f"{seed}:{number}")
    writer = _Writer(chance, number)
    _draw(chance)(writer)
    return writer.drafted


def record(seed: int, name: Name) -> Drafted:
    """The record of this name; a copy has another id."""
    first = next(each for each in story(seed, name.number) if each.name == Name(name.number, name.index, 0))
    return again(first, name.copy)


def again(drafted: Drafted, copy: int) -> Drafted:
    """The same event under another id."""
    if copy == 0 or drafted.event is None:
        return drafted._replace(name=drafted.name._replace(copy=copy))
    event = drafted.event | {"id": f"{drafted.event['id']}~{copy}"}
    return drafted._replace(name=drafted.name._replace(copy=copy), value=orjson.dumps(event), event=event)


def generation_of(number: int) -> int:
    return number // STORIES_A_GENERATION


class _Writer:
    """Writes a story down; all of it is one tenant's."""

    def __init__(self, chance: random.Random, number: int) -> None:
        self.chance = chance
        self.name = f"{number}"
        self.drafted: list[Drafted] = []
        self._number = number
        self._tenant = f"g{generation_of(number)}-{chance.randrange(TENANTS)}"
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


# --- the stories ----------------------------------------------------------------------------------------------------


def _sale(writer: _Writer) -> None:
    amount = writer.amount()
    payment = writer.pay(amount, fees=writer.chance.choice([0, 30, amount + 5]), description="a sale")
    writer.transfer(amount // 2)
    if writer.chance.random() < 0.1:
        writer.repeat(payment, "payments")
    if writer.chance.random() < 0.05:
        writer.repeat(payment, "payments", id=payment["id"] + "x")


def _refunded(writer: _Writer) -> None:
    amount = writer.amount()
    payment_id = f"p{writer.name}"
    writer.pay(amount)
    writer.refund("a", amount // 2, payment_id=payment_id)
    if writer.chance.random() < 0.3:
        writer.refund("b", amount - amount // 4, payment_id=payment_id)  # Too much, unless the first one failed.
    if writer.chance.random() < 0.3:
        writer.say("refunds", "refund.failed.v1", refund_id=f"r{writer.name}a", failure_code="no_account")
    if writer.chance.random() < 0.4:
        writer.shuffle()


def _disputed(writer: _Writer) -> None:
    amount = writer.amount()
    writer.pay(amount)
    writer.say(
        "disputes", "dispute.opened.v1", dispute_id=f"d{writer.name}", amount=amount, currency=writer.currency,
        customer_id=writer.customer, payment_id=f"p{writer.name}", fees=15,
    )  # fmt: skip
    dispute = {"dispute_id": f"d{writer.name}"}
    if writer.chance.random() < 0.5:
        writer.say("disputes", "dispute.won.v1", **dispute, outcome_id="1", amount=amount // 3)
    writer.say("disputes", "dispute.lost.v1", **dispute, charge_to=writer.chance.choice(["customer", "platform"]))
    if writer.chance.random() < 0.3:
        writer.say("disputes", "dispute.reopened.v1", **dispute, reopening_id="1", amount=amount // 2, fees=5)
        writer.say("disputes", "dispute.won.v1", **dispute, outcome_id="2")
    if writer.chance.random() < 0.3:
        writer.shuffle()


def _paid_out(writer: _Writer) -> None:
    amount = writer.amount()
    writer.transfer(amount)
    payout = {"payout_id": f"o{writer.name}"}
    writer.say(
        "payouts", "payout.paid.v1", **payout, amount=amount, currency=writer.currency, merchant_id=writer.merchant
    )
    if writer.chance.random() < 0.3:
        writer.say("payouts", "payout.failed.v1", **payout, failure_code="closed")
    if writer.chance.random() < 0.3:
        writer.say("transfers", "transfer.reversed.v1", transfer_id=f"t{writer.name}", amount=amount // 2)
        writer.say("transfers", "transfer.reversed.v1", transfer_id=f"t{writer.name}", reversal_id="2")
    if writer.chance.random() < 0.3:
        writer.shuffle()


def _requested(writer: _Writer) -> None:
    chance = writer.chance
    wallet, other = (f"wallet:{chance.randrange(WALLETS)}" for _ in range(2))
    floor: dict[str, Any] = {"floor": {"EUR": -50_000}} if chance.random() < 0.3 else {}
    writer.say("commands", "account.create.v1", name=wallet, type="liability", key=f"k{writer.name}.0", **floor)
    amount = writer.amount()
    postings: list[Event] = [
        {"account": wallet, "amount": -amount, "currency": "EUR"},
        {"account": other, "amount": amount + (chance.random() < 0.1), "currency": "EUR"},
    ]
    if chance.random() < 0.2:
        postings[0]["expect_version"] = chance.randrange(30)
    post = writer.say("commands", "entry.post.v1", key=f"k{writer.name}.1", postings=postings, description="moved")
    if chance.random() < 0.1:
        writer.repeat(post, "commands", id=post["id"] + "x")
    if chance.random() < 0.15:
        status = chance.choice(["active", "frozen"])
        writer.say("commands", "account.update.v1", name=wallet, status=status, key=f"k{writer.name}.2")
    if chance.random() < 0.05:
        writer.say("commands", "account.close.v1", name=other, key=f"k{writer.name}.3")
    if chance.random() < 0.02:
        writer.say("commands", "period.close.v1", through="2024-03-31", key=f"k{writer.name}.4")


def _contradictory(writer: _Writer) -> None:
    payment = writer.pay(writer.amount())
    changed = payment["data"] | {"amount": payment["data"]["amount"] + 1}
    if writer.chance.random() < 0.5:
        writer.repeat(payment, "payments", data=changed)  # The same delivery with another body.
    else:
        writer.repeat(payment, "payments", data=changed, id=payment["id"] + "x")


def _hopeless(writer: _Writer) -> None:
    way = writer.chance.randrange(4)
    if way == 0:
        writer.refund("z", 100, payment_id=f"never{writer.name}")  # Waits for ever.
    elif way == 1:
        writer.say("payments", "transfer.created.v1", transfer_id="t", amount=1)  # A dead letter: the wrong topic.
        writer.drafted[-1] = writer.drafted[-1]._replace(event=None)
    elif way == 2:
        writer.scribble(writer.chance.choice(["payments", "payouts", "commands"]), writer.chance.choice(_NOT_EVENTS))
    else:
        writer.currency = "XXQ"
        writer.pay(writer.amount())


# Holds and authorizations come here when the ledger knows them, and the model does.
_STORIES: tuple[tuple[int, Callable[[_Writer], None]], ...] = (
    (50, _sale),
    (14, _refunded),
    (10, _disputed),
    (12, _paid_out),
    (10, _requested),
    (3, _contradictory),
    (2, _hopeless),
)
_TELLERS = [teller for weight, teller in _STORIES for _ in range(weight)]


def _draw(chance: random.Random) -> Callable[[_Writer], None]:
    return chance.choice(_TELLERS)
