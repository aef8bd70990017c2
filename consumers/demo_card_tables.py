"""The demo's day of card spending, as tables for people."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from typing import Any

from rich.text import Text

from consumers.demo_card_day import TOURS
from consumers.demo_reading import Found
from consumers.demo_scribe import Story
from domain.expiry import EXPIRY_TYPE
from domain.money import in_major_units
from infra.postgres.queries import AuthorizationDocument

Row = list[Text | str]
YES, PARTLY, NO = "green", "yellow", "red"
_TIMES = {2: "twice", 3: "three times"}


def decisions(story: Story, found: Found) -> list[Row]:
    """When, who and where, what was asked for, the answer, and why."""
    rows: list[Row] = []
    for decision in found.decisions:
        when, who = story.titles[decision["external_id"]]
        asked = in_major_units(decision["amount"], decision["currency"])
        rows.append([when.strftime("%H:%M"), who, asked, *_answer(decision)])
    return rows


def _answer(decision: Mapping[str, Any]) -> tuple[Text, Text | str]:
    if decision["decision"] == "declined":
        return Text("no", NO), "\n".join(decision["reasons"])
    approved = in_major_units(decision["approved_amount"], decision["currency"])
    if decision["amount"] == 0:
        return Text("yes", YES), Text("whether the card is good", "dim")
    if decision["decided_by"] == "stand_in":
        return Text(approved, PARTLY), Text("the processor has said yes in our place", "dim")
    if "reason" in decision:
        return Text(approved, PARTLY), f"partial: {', '.join(decision['reasons'])}"
    held = decision.get("hold_amount", decision["approved_amount"])
    more = held != decision["approved_amount"]
    return Text(approved, YES), Text(f"holds {in_major_units(held, decision['currency'])}" if more else "", "dim")


def lives(story: Story, found: Found) -> list[Row]:
    """What became of each payment that was approved or posted: where, its life in words, its amounts if there are."""
    rows: list[Row] = []
    for paid in sorted(found.card_payments, key=lambda paid: story.titles[paid["external_id"]]):
        if paid["status"] == "declined":
            continue
        _, who = story.titles[paid["external_id"]]
        amounts = (paid["captured"], paid["refunded"], paid["held"])
        rows.append([who, _told(paid), paid["status"], *(_plain(amount, paid["currency"]) for amount in amounts)])
    return rows


def _plain(amount: int, currency: str | None) -> str:
    """An amount in a table that is of one currency; nothing where there is nothing."""
    return in_major_units(amount, currency).removesuffix(f" {currency}") if amount and currency else ""


def _told(paid: AuthorizationDocument) -> str:
    """What happened to it, in order; the same several times in a row is said once."""
    words: list[list[str]] = []
    for event in paid["events"]:
        word = "expired" if event["type"] == EXPIRY_TYPE else event["type"].split(".")[1]
        if words and words[-1][0] == word:
            words[-1].append(word)
        else:
            words.append([word])
    return ", ".join(
        f"{same[0]} {_TIMES.get(len(same), f'{len(same)} times')}" if same[1:] else same[0] for same in words
    )


def lines(found: Found) -> list[Row]:
    """Each line of credit: whose, for what, and how much of it is spent."""
    rows: list[Row] = []
    for line in found.lines:
        amounts = (line["credits_limit"], line["expensed_credits"], line["available_credits"])
        rows.append([line["line_of_credit_id"], *(in_major_units(amount, line["currency"]) for amount in amounts)])
    return rows


def wallets(found: Found) -> list[Row]:
    """The cardholders' accounts: what is posted, what of it is set aside, and what is left."""
    rows: list[Row] = []
    for balance in found.accounts[TOURS]:
        if balance["account"].startswith("wallet:"):
            amounts = (-balance["posted"], balance["held"] or 0, balance["available"] or 0)
            rows.append([balance["account"], *(in_major_units(amount, balance["currency"]) for amount in amounts)])
    return rows


def categories(found: Found) -> list[Row]:
    """Each category, and which payments are of it."""
    return [[category["code"], " or ".join(map(_rule, category["match"]))] for category in found.categories]


def _rule(rule: Mapping[str, Any]) -> str:
    told = []
    if "mccs" in rule:
        told.append(f"MCC {', '.join(rule['mccs'])}")
    if "countries" in rule:
        told.append(f"in {', '.join(rule['countries'])}")
    if "merchants" in rule:
        told.append(f"at {', '.join(each['merchant_id'] for each in rule['merchants'])}")
    return " ".join(told)


def summary(answers: Counter[str]) -> str:
    """How many got which answer."""
    yes = sum(count for answer, count in answers.items() if answer.startswith("approved"))
    reasons = {answer for answer in answers if answer.startswith("declined")}
    return f"{answers.total()} answers: {yes} times yes, {answers.total() - yes} times no, for {len(reasons)} reasons"
