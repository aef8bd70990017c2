"""A week of three small marketplaces, with everything that can happen to money, and a day of card spending."""

from __future__ import annotations

from datetime import UTC, date, datetime, time, timedelta
from random import Random

from consumers.demo_card_day import TOURS, CardDay
from consumers.demo_records import publish_what_is_no_event
from consumers.demo_scribe import Scribe, Story
from consumers.demo_trade import CASH, Marketplace, customer, merchant
from consumers.demo_traffic import Traffic

SEED = 1993
HARBOUR, KYOTO, GULF = "harbour-market", "kyoto-crafts", "gulf-bazaar"
TENANTS = (HARBOUR, KYOTO, GULF, TOURS)
POP_UP = merchant("pop-up")
MALLORY = customer("mallory")
CAMPAIGN = (("marketing", 45_00), (CASH, -45_00))


def last_monday(today: date) -> date:
    """The Monday of the week before the one that `today` is in."""
    return today - timedelta(days=today.weekday() + 7)


def write_story(monday: date, cards_on: date, seed: int = SEED) -> Story:
    """The week that begins on this Monday, and a day of cards; the same from the same, byte for byte.

    That day must be of the last few: what a card payment holds, the clock gives back after a week.
    """
    scribe = Scribe(datetime.combine(monday, time(), UTC))
    harbour = Marketplace(scribe, HARBOUR, "EUR")
    week = _Week(scribe, harbour, Random(seed))
    days = [week.monday, week.tuesday, week.wednesday, week.thursday, week.friday, week.saturday, week.sunday]
    begin = datetime.combine(monday, time(8), UTC)
    scribe.turn_to("The evening before", begin - timedelta(hours=13))
    week.evening_before()
    for number, day in enumerate(days):
        scribe.turn_to(day.__name__.capitalize(), begin + timedelta(days=number))
        day()
        week.traffic.trade(number)
    CardDay(scribe, cards_on).write()
    scribe.expected.streamed_balances = dict(scribe.expected.balances)
    return Story(scribe.stages, scribe.expected, scribe.titles)


class _Week:
    """One method a day. What follows another event across topics comes on a later day, unless it is to be parked."""

    def __init__(self, scribe: Scribe, harbour: Marketplace, random: Random) -> None:
        self.scribe, self.harbour = scribe, harbour
        self.harbour_usd = Marketplace(scribe, HARBOUR, "USD")
        self.kyoto = Marketplace(scribe, KYOTO, "JPY")
        self.gulf = Marketplace(scribe, GULF, "KWD")
        self.traffic = Traffic(scribe, (harbour, self.harbour_usd, self.kyoto, self.gulf), random)
        self._first_payment = ""
        self._campaign = ""

    def evening_before(self) -> None:
        """The books are opened: a few accounts of their own, one with a floor, and the owners' money."""
        for market, capital in ((self.harbour, 5_000_00), (self.kyoto, 750_000), (self.gulf, 1_500_000)):
            market.account(CASH, "asset", description="What is at the bank")
            market.account("owners:capital", "equity")
            key = f"capital-{market.tenant}"
            market.entry(key, "The owners' own money", (CASH, capital), ("owners:capital", -capital))
        self.harbour.account(POP_UP, "liability", currency="EUR", floor=0, description="A stall: no credit")
        self.harbour.account("marketing", "expense")

    def monday(self) -> None:
        self._first_payment = self.harbour.payment("pay-ada", "ada", 120_00, fees=3_75, description="A bicycle bell")
        self.harbour.payment("pay-ben", "ben", 80_00, fees=2_57)
        self.harbour.payment("pay-cleo", "cleo", 200_00, fees=6_05)
        self.harbour.payment("pay-mallory", "mallory", 60_00, fees=1_99)
        self.kyoto.payment("pay-kenji", "kenji", 25_000, fees=725)
        self.gulf.payment("pay-noor", "noor", 42_500, fees=1_275)
        # The same message twice, as a producer that retries sends it.
        self.scribe.publish_again(self._first_payment)
        # Refunded at once; the news of it overtakes that of the payment.
        self.harbour.refund("ref-early", "dora", 15_00, payment_id="pay-dora")
        self.scribe.parked(HARBOUR, "payment pay-dora", comes=True)

    def tuesday(self) -> None:
        self.harbour.payment("pay-dora", "dora", 90_00, fees=2_86)
        # The same business fact again: another id, another source, another partition.
        self.scribe.publish_again(self._first_payment, new_id="import-000001")
        # A very small payment, on which the fees are more than there was to take.
        self.harbour.payment("pay-crumb", "ben", 50, fees=80)
        self.harbour.transfer("tr-pop-up", "cleo", "pop-up", 120_00)
        self.harbour.refund("ref-ben", "ben", 30_00, payment_id="pay-ben")
        self.gulf.refund("ref-noor", "noor", 12_345, payment_id="pay-noor")

    def wednesday(self) -> None:
        first = {"payment_id": "pay-ada", "amount": 125_00, "currency": "EUR", "customer_id": "ada", "fees": 3_75}
        self.harbour.refused("idempotency_conflict", "payment.captured", **first)
        self.harbour.transfer_reversed("tr-pop-up", "cleo", "pop-up", 20_00, reversal_id="damaged")
        self.harbour.refused(
            "reversal_exceeds_transfer",
            "transfer.reversed",
            transfer_id="tr-pop-up",
            reversal_id="again",
            amount=150_00,
        )
        self.harbour.dispute("dis-ada", "ada", 120_00, payment_id="pay-ada", fees=15_00)
        self.harbour.dispute("dis-cleo", "cleo", 200_00, payment_id="pay-cleo", fees=15_00)
        self.harbour.dispute("dis-ben", "ben", 50_00, payment_id="pay-ben", fees=15_00)
        self.harbour.refund("ref-bounced", "dora", 20_00, payment_id="pay-dora")
        self.kyoto.refund("ref-kenji", "kenji", 5_000, payment_id="pay-kenji")
        publish_what_is_no_event(self.scribe, HARBOUR)

    def thursday(self) -> None:
        self.harbour.dispute_won("dis-ada", 120_00)
        self.harbour.dispute_lost("dis-ben", 50_00, charged="ben")
        self.harbour.dispute_lost("dis-cleo", 80_00, charged="platform", outcome_id="part-1", partly=True)
        self.harbour.refund_failed("ref-bounced", "dora", 20_00, "account_closed")
        self.harbour.freeze(MALLORY)
        # A request that would take the stall below its floor is refused.
        fine = (POP_UP, 250_00), ("owners:capital", -250_00)
        self.harbour.entry("fine-1", "A fine for a late opening", *fine, refused="insufficient_balance")
        self._campaign = self.harbour.entry("campaign", "Leaflets", *CAMPAIGN)

    def friday(self) -> None:
        # A payout that has happened is posted all the same, and its entry says what it broke.
        self.harbour.payout("po-pop-up", "pop-up", 130_00, breaches=["insufficient_balance"])
        self.harbour.payment("pay-mallory-2", "mallory", 25_00, fees=98, breaches=["account_frozen"])
        back = (MALLORY, 10_00), (CASH, -10_00)
        self.harbour.entry("mallory-1", "By hand, to a frozen account", *back, refused="account_frozen")
        self.harbour.dispute_won("dis-cleo", 120_00, outcome_id="part-2")
        lame = ("marketing", 19_90), (CASH, -19_00)
        self.harbour.entry("typo", "Does not balance", *lame, refused="postings_not_balanced")
        self.scribe.publish_again(self._campaign)

    def saturday(self) -> None:
        self.harbour.dispute_reopened("dis-ada", 100_00, fees=15_00, reopening_id="arbitration")
        self.harbour.refused("dispute_closed", "dispute.won", dispute_id="dis-ben", outcome_id="too-late")
        self.harbour.entry_reversed("campaign", "The printer gave the money back", *CAMPAIGN)
        refund = {"refund_id": "ref-much", "payment_id": "pay-ben", "currency": "EUR", "customer_id": "ben"}
        self.harbour.refused("refund_exceeds_payment", "refund.succeeded", **refund, amount=60_00)
        refund = {"refund_id": "ref-wrong", "payment_id": "pay-ben", "currency": "EUR", "customer_id": "bob"}
        self.harbour.refused("customer_mismatch", "refund.succeeded", **refund, amount=1_00)

    def sunday(self) -> None:
        self.harbour.dispute_lost("dis-ada", 100_00, charged="platform", outcome_id="arbitration")
        orphan = {"refund_id": "ref-orphan", "payment_id": "pay-nowhere", "customer_id": "eve"}
        self.harbour.fact("refund.succeeded", **orphan, amount=5_00, currency="EUR")
        self.scribe.parked(HARBOUR, "payment pay-nowhere", comes=False)
        self.gulf.fact("payout.failed", payout_id="po-nowhere", failure_code="no_such_account")
        self.scribe.parked(GULF, "payout po-nowhere", comes=False)
        strange = {"payment_id": "pay-gold", "customer_id": "kenji", "currency": "XAU"}
        self.kyoto.refused("unknown_currency", "payment.captured", **strange, amount=1)
