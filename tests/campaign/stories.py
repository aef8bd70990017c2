"""Stories about money: sales, refunds, disputes, payouts, requests, and what can't be right."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from tests.campaign.writer import WALLETS, Event, Writer

_NOT_EVENTS = (b"not an event", b"{", b'{"specversion": "1.0"}', b"\xff\xfe", b"[]")


def _sale(writer: Writer) -> None:
    amount = writer.amount()
    payment = writer.pay(amount, fees=writer.chance.choice([0, 30, amount + 5]), description="a sale")
    writer.transfer(amount // 2)
    if writer.chance.random() < 0.1:
        writer.repeat(payment, "payments")
    if writer.chance.random() < 0.05:
        writer.repeat(payment, "payments", id=payment["id"] + "x")


def _refunded(writer: Writer) -> None:
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


def _disputed(writer: Writer) -> None:
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


def _paid_out(writer: Writer) -> None:
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


def _requested(writer: Writer) -> None:
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


def _contradictory(writer: Writer) -> None:
    payment = writer.pay(writer.amount())
    changed = payment["data"] | {"amount": payment["data"]["amount"] + 1}
    if writer.chance.random() < 0.5:
        writer.repeat(payment, "payments", data=changed)  # The same delivery with another body.
    else:
        writer.repeat(payment, "payments", data=changed, id=payment["id"] + "x")


def _hopeless(writer: Writer) -> None:
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


MONEY: tuple[tuple[int, Callable[[Writer], None]], ...] = (
    (42, _sale),
    (12, _refunded),
    (9, _disputed),
    (11, _paid_out),
    (8, _requested),
    (3, _contradictory),
    (2, _hopeless),
)
"""How often of about a hundred times, and which."""
