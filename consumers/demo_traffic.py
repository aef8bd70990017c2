"""Everyday trade: payments by chance, their proceeds passed on to merchants, refunds, and payouts on Friday."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from random import Random

from consumers.demo_scribe import Scribe
from consumers.demo_trade import Marketplace, merchant

FRIDAY, SATURDAY = 4, 5
_CUSTOMERS = ("ava", "bruno", "chiyo", "dalia", "emil", "farah", "goran", "hana", "ines", "jonas", "karim", "lena")
_MERCHANTS = ("bakery", "bookshop", "cyclery", "pottery")


@dataclass(frozen=True, slots=True)
class _Price:
    """Amounts in minor units; fees are 2.9 % and a fixed part."""

    least: int
    most: int
    step: int
    fee: int


_PRICES = {
    "EUR": _Price(4_00, 180_00, 5, 25),
    "USD": _Price(5_00, 150_00, 5, 30),
    "JPY": _Price(600, 24_000, 10, 40),
    "KWD": _Price(1_500, 48_000, 250, 90),
}
_PAYMENTS_A_DAY = {"EUR": 28, "USD": 9, "JPY": 22, "KWD": 16}


@dataclass(slots=True)
class _Sale:
    payment_id: str
    payer: str
    amount: int
    fees: int
    refunded: bool = False


@dataclass(slots=True)
class _Day:
    """What one day of one marketplace left to be done on the next."""

    sales: list[_Sale] = field(default_factory=list)
    payouts: list[tuple[str, str, int]] = field(default_factory=list)


class Traffic:
    """The trade of these marketplaces, day after day, reckoned as it is written."""

    def __init__(self, scribe: Scribe, markets: Sequence[Marketplace], random: Random) -> None:
        self._scribe = scribe
        self._markets = [(market, _Day()) for market in markets]
        self._random = random
        self._number = 1000

    def trade(self, day: int) -> None:
        """One day, 0 for Monday: what yesterday left to be done, then today's payments."""
        for market, yesterday in self._markets:
            for sale in yesterday.sales:
                self._settle(market, sale)
            for payout_id, payee, amount in yesterday.payouts:
                market.payout_failed(payout_id, payee, amount, "bank_rejected")
            yesterday.sales = [self._sale(market) for _ in range(_PAYMENTS_A_DAY[market.currency])]
            yesterday.payouts = self._payouts(market) if day == FRIDAY else []

    def _sale(self, market: Marketplace) -> _Sale:
        price = _PRICES[market.currency]
        amount = self._random.randrange(price.least, price.most, price.step)
        fees = amount * 29 // 1000 + price.fee
        sale = _Sale(self._id("pay"), self._random.choice(_CUSTOMERS), amount, fees)
        market.payment(sale.payment_id, sale.payer, amount, fees=fees)
        return sale

    def _settle(self, market: Marketplace, sale: _Sale) -> None:
        """Nine in ten go on to a merchant; the rest is refunded, wholly or by half."""
        if self._random.randrange(10):
            payee = self._random.choice(_MERCHANTS)
            market.transfer(self._id("tr"), sale.payer, payee, sale.amount - sale.fees)
        else:
            amount = sale.amount // self._random.choice((1, 2))
            market.refund(self._id("ref"), sale.payer, amount, payment_id=sale.payment_id)

    def _payouts(self, market: Marketplace) -> list[tuple[str, str, int]]:
        """Pay each merchant four fifths of what the week's story says it has; one of these payouts will bounce."""
        paid = []
        for payee in _MERCHANTS:
            amount = self._scribe.natural(market.tenant, merchant(payee), market.currency) * 4 // 5
            if amount > 0:
                paid.append((self._id("po"), payee, amount))
                market.payout(*paid[-1])
        return [self._random.choice(paid)] if paid and market.currency in ("EUR", "JPY") else []

    def _id(self, prefix: str) -> str:
        self._number += 1
        return f"{prefix}-{self._number}"
