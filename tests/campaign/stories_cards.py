"""Stories about holds and card payments, and the books that a tenant has for them."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from tests.campaign.writer import Event, Writer

CARDS_A_TENANT, OWNERS = 6, 3
"""The last card is nobody's."""
_FUNDS, _LIMIT = 2_000_000, 1_500_000
_NEVER, _LONG_AGO = "2199-01-01T00:00:00Z", "2020-01-01T00:00:00Z"
_CATEGORIES = {
    "food": [{"mccs": ["5411", "5811-5814"]}],
    "travel": [{"mccs": ["4511"]}, {"mccs": ["5812"], "countries": ["FRA"]}],
}


def _owner(number: int) -> dict[str, str]:
    return {"owner_type": "team", "owner_ref": f"00000000-0000-4000-8000-{number:012}"}


def open_books(writer: Writer) -> None:
    """Accounts with funds, categories, lines of credit and cards."""

    def ask(type_name: str, **data: Any) -> None:
        writer.say("commands", type_name, key=f"k{writer.name}.{len(writer.drafted)}", **data)

    ask("account.create.v1", name="bank", type="asset")
    for card in range(CARDS_A_TENANT):
        ask("account.create.v1", name=f"card:{card}", type="liability", floor={"EUR": 0})
    legs = [{"account": f"card:{card}", "amount": -_FUNDS, "currency": "EUR"} for card in range(CARDS_A_TENANT)]
    legs.append({"account": "bank", "amount": _FUNDS * CARDS_A_TENANT, "currency": "EUR"})
    ask("entry.post.v1", postings=legs)
    for code, match in _CATEGORIES.items():
        ask("expense_category.create.v1", code=code, name=code, match=match)
        for owner in range(OWNERS):
            ask(
                "line_of_credit.create.v1", line_of_credit_id=f"{code}:{owner}", expense_category=code, currency="EUR",
                credits_limit=_LIMIT, **_owner(owner),
            )  # fmt: skip
    for card in range(CARDS_A_TENANT - 1):
        ask("card.assign.v1", card_id=f"card:{card}", **_owner(card % OWNERS))


def _held(writer: Writer) -> None:
    chance, amount = writer.chance, writer.amount()
    hold = {"hold_id": f"h{writer.name}"}

    def say(what: str, **data: Any) -> None:
        writer.say("authorizations", f"hold.{what}.v1", **hold, **data)

    account = "nobody" if chance.random() < 0.03 else _card(writer)
    # Without an end of its own it ends a week after its time, which is long ago: as soon as the clock process looks.
    ends = {} if chance.random() < 0.4 else {"expires_at": _NEVER}
    say("created", account=account, amount=amount, currency="EUR", direction=chance.choice(["in", "out"]), **ends)
    if chance.random() < 0.4:
        say("adjusted", adjustment_id="1", amount=chance.randrange(1, amount * 2))
    if chance.random() < 0.2:
        say("adjusted", adjustment_id="2", amount=amount // 2, **ends)
    way = chance.random()
    if way < 0.4:
        say("captured", capture_id="1", final=False, amount=amount // 3)
    if way < 0.7:
        say("captured", capture_id="2", **({"amount": amount // 2} if chance.random() < 0.5 else {}))
    elif way < 0.9:
        say("voided")
    if chance.random() < 0.3:
        writer.shuffle()


def _paid_by_card(writer: Writer) -> None:
    chance = writer.chance
    payment = {"provider": chance.choice(["visa", "mastercard"]), "external_id": f"x{writer.name}"}
    asked = _asked(writer)

    def say(what: str, number: int = 0, **data: Any) -> None:
        told = {"event_id": f"{what}.{number}"} if number else {}
        writer.say("authorizations", f"authorization.{what}.v1", **payment, **told, **data)

    amount, way = asked["amount"], chance.random()
    if way > 0.05:
        say("requested", **asked, **_terms(writer))
    if way < 0.15:
        say("advised", **asked)
    if chance.random() < 0.6:
        say("confirmed", 1)
    if chance.random() < 0.25:
        say("adjusted", 1, amount=chance.randrange(amount * 2 + 1))
    if chance.random() < 0.3:
        say("captured", 1, amount=amount // 3 + 1, final=False)
    if chance.random() < 0.6:
        say("captured", 2, amount=amount // 2 + 1)
    if chance.random() < 0.15:
        say("refunded", 1, amount=amount // 4 + 1)
    if chance.random() < 0.25:
        part = {"amount": amount // 5 + 1} if chance.random() < 0.5 else {}
        say("released", 1, reason=chance.choice(["cancelled", "partial"]), **part)
    if chance.random() < 0.3:
        writer.shuffle()
    if chance.random() < 0.05:
        writer.repeat(writer.drafted[0].event or {}, "authorizations", id=f"e{writer.name}.x")


def _asked(writer: Writer) -> Event:
    """What a card payment is about."""
    chance = writer.chance
    amount = 0 if chance.random() < 0.03 else writer.amount()
    card = _card(writer)
    merchant = {
        "merchant_id": writer.merchant, "acquirer_id": "a1", "name": "Shop", "country": chance.choice(["FRA", "DEU"]),
        "mcc": chance.choice(["5411", "5812", "5813", "4511", "4511", "9999"]),
    }  # fmt: skip
    asked = {"amount": amount, "currency": chance.choice(["EUR"] * 9 + ["USD"]), "card_id": card, "merchant": merchant}
    if chance.random() < 0.6:
        asked["account"] = "nobody" if chance.random() < 0.03 else card
        if chance.random() < 0.2:
            asked["hold_amount"] = amount * 2
    if chance.random() < 0.6:
        asked["expires_at"] = _NEVER
    return asked


def _terms(writer: Writer) -> Event:
    """Until when a request must be answered, and with how much."""
    terms: Event = {}
    if writer.chance.random() < 0.3:
        terms["partial_approval"] = True
    if writer.chance.random() < 0.25:
        terms["respond_by"] = writer.chance.choice([_NEVER, _NEVER, _NEVER, _LONG_AGO])
    return terms


def _forced(writer: Writer) -> None:
    writer.say(
        "authorizations", "authorization.captured.v1", provider="visa", external_id=f"x{writer.name}", event_id="1",
        amount=writer.amount(), force_post=True, currency="EUR", account=_card(writer),
    )  # fmt: skip


def _limited(writer: Writer) -> None:
    chance = writer.chance
    line = {"line_of_credit_id": f"{chance.choice(list(_CATEGORIES))}:{chance.randrange(OWNERS)}"}
    limit = chance.choice([_LIMIT // 20, _LIMIT, _LIMIT])
    way = chance.random()
    if way < 0.5:
        writer.say("commands", "line_of_credit.reset.v1", key=f"k{writer.name}", **line, credits_limit=limit,
                   expensed_credits=0)  # fmt: skip
    elif way < 0.8:
        writer.say("commands", "line_of_credit.set_limit.v1", key=f"k{writer.name}", **line, credits_limit=limit)
    elif way < 0.82:
        writer.say("commands", "line_of_credit.terminate.v1", key=f"k{writer.name}", **line)
    else:
        card, owner = _card(writer), _owner(chance.randrange(OWNERS))
        writer.say("commands", "card.unassign.v1", key=f"k{writer.name}.0", card_id=card, **owner)
        writer.say("commands", "card.assign.v1", key=f"k{writer.name}.1", card_id=card, **owner)


def _card(writer: Writer) -> str:
    return f"card:{writer.chance.randrange(CARDS_A_TENANT)}"


CARDS: tuple[tuple[int, Callable[[Writer], None]], ...] = ((5, _held), (9, _paid_by_card), (1, _forced), (1, _limited))
"""How often of about a hundred times, and which."""
