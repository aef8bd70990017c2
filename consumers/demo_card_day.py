"""A day of card spending: every answer that a processor can get, and everything that can become of a payment."""

from __future__ import annotations

from datetime import UTC, date, datetime, time, timedelta

from consumers.demo_cards import CardDesk, Holder, Shop
from consumers.demo_resolver import NAME
from consumers.demo_scribe import Scribe
from consumers.demo_trade import CASH, Marketplace

TOURS = "north-star-tours"
ADA = Holder("ada", "card-1", "wallet:ada")
BO = Holder("bo", "card-2", "wallet:bo")
BO_ON_CREDIT = BO._replace(account=None)
CLEO = Holder("cleo", "card-3", "wallet:cleo")
DAN = Holder("dan", "card-4", "wallet:dan")
FOUND = Holder("somebody", "card-0", "wallet:ada")

METRO, PARKING, HOTEL = Shop("Metro", "4111"), Shop("Parking", "7523"), Shop("Hotel", "7011")
CAFE, BISTRO, DINER = Shop("Cafe", "5814"), Shop("Bistro", "5812"), Shop("Diner", "5812")
PUMP, MUSEUM = Shop("Fuel pump", "5542"), Shop("Museum", "7991")
CASINO, MOVERS = Shop("Casino", "7995"), Shop("Movers", "4214")


class CardDay:
    """One day of a company whose people pay by card."""

    def __init__(self, scribe: Scribe, day: date) -> None:
        self.scribe = scribe
        self.desk = CardDesk(scribe, TOURS, "EUR")
        self._books = Marketplace(scribe, TOURS, "EUR")
        self._midnight = datetime.combine(day, time(), UTC)

    def write(self) -> None:
        """All its stages, one after the other."""
        self.scribe.turn_to("The cards are handed out", self._at(7))
        self.cards_are_handed_out()
        self.scribe.turn_to("A day of card spending", self._at(8))
        for hour in (self.morning, self.noon, self.declines, self.afternoon, self.night, self.deposits):
            hour()
        self.scribe.turn_to("What clears when it has expired", self._at(22))
        self.next_morning()
        self.scribe.turn_to("The ledger starts anew, with a resolver of the house", self._at(22, 30), resolver=NAME)
        self.house_rules()
        self.desk.reckon()

    def _at(self, hour: int, minute: int = 0) -> datetime:
        return self._midnight + timedelta(hours=hour, minutes=minute)

    def _turn(self, hour: int, minute: int = 0) -> None:
        self.scribe.now = self._at(hour, minute)

    def cards_are_handed_out(self) -> None:
        self.desk.category("meals", "Eating out", {"mccs": ["5811-5814"]})
        self.desk.category("fuel", "Fuel", {"mccs": ["5541-5542"], "countries": ["FRA", "DEU"]})
        shuttle = {"merchants": [{"merchant_id": "airport-shuttle", "acquirer_id": "acq-1"}]}
        self.desk.category("travel", "Getting there, and staying", {"mccs": ["4111", "7011", "7523"]}, shuttle)
        limits = ((ADA, "meals", 120_00), (ADA, "fuel", 300_00), (ADA, "travel", 1_000_00))
        for holder, category, limit in (*limits, (BO, "meals", 50_00), (CLEO, "meals", 50_00), (DAN, "meals", 50_00)):
            self.desk.line(holder, category, limit)
        self.desk.line(BO, "travel", 500_00, "USD")
        self._books.account(CASH, "asset")
        for holder, funds in ((ADA, 1_500_00), (BO, 40_00), (CLEO, 200_00), (DAN, 0)):
            assert holder.account is not None
            self.desk.card(holder)
            self._books.account(holder.account, "liability")
            if funds:
                self._books.entry(f"top-up-{holder.name}", "Topped up", (CASH, funds), (holder.account, -funds))
        self._books.freeze("wallet:cleo")
        self.desk.close("wallet:dan")

    def morning(self) -> None:
        self.desk.asks("card-check", ADA, METRO, 0, approved=0, lines=["ada-travel"])
        self._turn(8, 20)
        asked = self.desk.asks("coffee", ADA, CAFE, 12_40, approved=12_40, lines=["ada-meals"])
        captured = self.desk.captured("coffee", "clearing", 12_40)
        # A processor that hears nothing says it again.
        for event_id in (asked, captured, captured):
            self.scribe.publish_again(event_id)
        self._turn(9, 10)
        self.desk.asks("fuel", ADA, PUMP, 1_00, approved=1_00, lines=["ada-fuel"], hold_amount=100_00)
        self.desk.captured("fuel", "clearing", 63_20)
        self._turn(10)
        ends = self._at(12).isoformat()
        self.desk.asks("parking", ADA, PARKING, 18_00, approved=18_00, lines=["ada-travel"], expires_at=ends)

    def noon(self) -> None:
        self._turn(11, 30)
        # The confirmation overtakes the request, and the guest leaves a tip.
        self.desk.confirmed("lunch")
        self.desk.asks("lunch", ADA, BISTRO, 60_00, approved=60_00, lines=["ada-meals"])
        self.desk.captured("lunch", "with-a-tip", 72_00)
        self._turn(12, 45)
        late = (self.scribe.now + timedelta(seconds=2)).isoformat()
        self.desk.asks("sandwich", BO, CAFE, 15_00, why="expired_before_decision", respond_by=late)
        self.desk.advises("sandwich", BO, CAFE, 15_00, lines=["bo-meals"])
        self.desk.captured("sandwich", "clearing", 15_00)

    def declines(self) -> None:
        self._turn(13)
        self.desk.asks("museum", ADA, MUSEUM, 22_00, why="no_expense_category")
        self.desk.asks("found-card", FOUND, DINER, 30_00, why="no_line_of_credit")
        self.desk.asks("train", BO_ON_CREDIT, METRO, 45_00, why="currency_mismatch")
        self.desk.asks("banquet", BO_ON_CREDIT, DINER, 70_00, why="insufficient_credits")
        self.desk.asks("snack", BO._replace(account="wallet:lost"), CAFE, 4_00, why="account_not_found")
        self.desk.asks("soup", CLEO, DINER, 11_00, why="account_frozen")
        self.desk.asks("salad", DAN, DINER, 13_00, why="account_closed")
        self.desk.asks("pizza", BO, DINER, 30_00, why="insufficient_balance")

    def afternoon(self) -> None:
        self._turn(14)
        why, lines = "insufficient_credits", ["ada-meals"]
        self.desk.asks("dinner", ADA, DINER, 50_00, approved=35_60, lines=lines, why=why, partial_approval=True)
        self.desk.captured("dinner", "clearing", 35_60)
        self._turn(15)
        self.desk.asks("hotel", ADA, HOTEL, 200_00, approved=200_00, lines=["ada-travel"])
        before = self.scribe.now.isoformat()
        self.desk.adjusted("hotel", "another-night", 300_00)
        self.desk.adjusted("hotel", "room-service", 420_00)
        self.desk.adjusted_before("hotel", "overtaken", 250_00, time=before)
        self.desk.captured("hotel", "nights", 300_00, final=False)
        self.desk.captured("hotel", "breakfasts", 45_00, final=False)
        self.desk.released("hotel", "checked-out", "partial")

    def night(self) -> None:
        self._turn(18)
        self.desk.force_posted("kiosk", "offline-sale", ADA, "Kiosk", 7_50)
        self.desk.refunded("coffee", "spilt", 2_40)
        self._turn(19)
        self.desk.asks("tonight", ADA, HOTEL, 180_00, approved=180_00, lines=["ada-travel"])

    def deposits(self) -> None:
        """Holds without a card: one lives on, one is voided, and one runs out."""
        self._turn(19, 30)
        self.desk.holds("bike", "wallet:ada", 150_00)
        self.desk.hold_captured("bike", "wallet:ada", 30_00, capture_id="a-scratch")
        self.desk.holds("locker", "wallet:ada", 20_00)
        self.desk.hold_voided("locker", "wallet:ada", 20_00)
        self.desk.holds("cheque", "wallet:bo", 5_00, direction="in", expires_at=self._at(20).isoformat())
        self.desk.hold_expired("wallet:bo", 5_00)
        self.desk.expired("parking")

    def next_morning(self) -> None:
        self.desk.captured("parking", "clearing", 18_00, breaches=["hold_not_pending"])

    def house_rules(self) -> None:
        self.desk.asks("late-snack", BO_ON_CREDIT, DINER, 9_00, approved=9_00, lines=["bo-meals"])
        self.desk.asks("roulette", ADA, CASINO, 20_00, why="expense_category_not_found")
        self.desk.asks("sofa", ADA, MOVERS, 80_00, why="resolver_failed")
