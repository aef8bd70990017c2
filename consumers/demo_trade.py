"""The money events of one marketplace, each written and reckoned in one go."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from consumers.demo_scribe import Leg, Scribe

CASH = "platform:cash"
FEES = "platform:fees"
HELD = "platform:disputes_held"
DISPUTE_FEES = "platform:dispute_fees"
LOSSES = "platform:dispute_losses"


def customer(name: str) -> str:
    return f"customer_balance:{name}"


def merchant(name: str) -> str:
    return f"merchant_settlement:{name}"


class Marketplace:
    """One tenant in one currency. Each method publishes a fact and reckons its entry; amounts in minor units."""

    def __init__(self, scribe: Scribe, tenant: str, currency: str) -> None:
        self.scribe, self.tenant, self.currency = scribe, tenant, currency

    def fact(self, event_type: str, **data: Any) -> str:
        """Publish a fact without reckoning anything; it is for who calls to say what it comes to."""
        return self.scribe.publish(
            self.tenant, f"{event_type}.v1", {name: value for name, value in data.items() if value is not None}
        )

    def _posted(self, kind: str, *legs: Leg, breaches: Sequence[str] = ()) -> None:
        self.scribe.posted(self.tenant, kind, self.currency, [leg for leg in legs if leg[1]], breaches)

    def payment(
        self, payment_id: str, payer: str, amount: int, *, fees: int = 0, breaches: Sequence[str] = (), **more: Any
    ) -> str:
        event_id = self.fact(
            "payment.captured",
            payment_id=payment_id,
            amount=amount,
            currency=self.currency,
            customer_id=payer,
            fees=fees,
            **more,
        )
        legs = (CASH, amount), (customer(payer), fees - amount), (FEES, -fees)
        self._posted("payment", *legs, breaches=breaches)
        return event_id

    def refund(self, refund_id: str, payer: str, amount: int, *, payment_id: str | None = None) -> str:
        event_id = self.fact(
            "refund.succeeded",
            refund_id=refund_id,
            amount=amount,
            currency=self.currency,
            customer_id=payer,
            payment_id=payment_id,
        )
        self._posted("refund", (customer(payer), amount), (CASH, -amount))
        return event_id

    def refund_failed(self, refund_id: str, payer: str, amount: int, failure_code: str) -> None:
        self.fact("refund.failed", refund_id=refund_id, failure_code=failure_code)
        self._posted("refund_failed", (customer(payer), -amount), (CASH, amount))

    def transfer(self, transfer_id: str, payer: str, payee: str, amount: int) -> str:
        event_id = self.fact(
            "transfer.created",
            transfer_id=transfer_id,
            amount=amount,
            currency=self.currency,
            customer_id=payer,
            merchant_id=payee,
        )
        self._posted("transfer", (customer(payer), amount), (merchant(payee), -amount))
        return event_id

    def transfer_reversed(self, transfer_id: str, payer: str, payee: str, amount: int, reversal_id: str) -> None:
        self.fact("transfer.reversed", transfer_id=transfer_id, reversal_id=reversal_id, amount=amount)
        self._posted("transfer_reversed", (customer(payer), -amount), (merchant(payee), amount))

    def payout(self, payout_id: str, payee: str, amount: int, *, breaches: Sequence[str] = ()) -> None:
        self.fact("payout.paid", payout_id=payout_id, amount=amount, currency=self.currency, merchant_id=payee)
        self._posted("payout", (merchant(payee), amount), (CASH, -amount), breaches=breaches)

    def payout_failed(self, payout_id: str, payee: str, amount: int, failure_code: str) -> None:
        self.fact("payout.failed", payout_id=payout_id, failure_code=failure_code)
        self._posted("payout_failed", (merchant(payee), -amount), (CASH, amount))

    def dispute(self, dispute_id: str, payer: str, amount: int, *, payment_id: str, fees: int) -> None:
        self.fact(
            "dispute.opened",
            dispute_id=dispute_id,
            amount=amount,
            currency=self.currency,
            customer_id=payer,
            payment_id=payment_id,
            fees=fees,
        )
        self._posted("dispute_opened", (HELD, amount), (DISPUTE_FEES, fees), (CASH, -amount - fees))

    def dispute_reopened(self, dispute_id: str, amount: int, *, fees: int, reopening_id: str) -> None:
        self.fact("dispute.reopened", dispute_id=dispute_id, reopening_id=reopening_id, amount=amount, fees=fees)
        self._posted("dispute_reopened", (HELD, amount), (DISPUTE_FEES, fees), (CASH, -amount - fees))

    def dispute_won(self, dispute_id: str, amount: int, *, outcome_id: str | None = None) -> None:
        """All that is still held, which is `amount`."""
        self.fact("dispute.won", dispute_id=dispute_id, outcome_id=outcome_id)
        self._posted("dispute_won", (CASH, amount), (HELD, -amount))

    def dispute_lost(
        self, dispute_id: str, amount: int, *, charged: str, outcome_id: str | None = None, partly: bool = False
    ) -> None:
        """`charged`: a customer, or "platform"; `partly`: the amount is said, and the rest goes on being held."""
        by_platform = charged == "platform"
        self.fact(
            "dispute.lost",
            dispute_id=dispute_id,
            outcome_id=outcome_id,
            amount=amount if partly else None,
            charge_to="platform" if by_platform else None,
        )
        self._posted("dispute_lost", (LOSSES if by_platform else customer(charged), amount), (HELD, -amount))

    def refused(self, code: str, event_type: str, **data: Any) -> None:
        """Publish a fact that must be rejected with this code."""
        self.fact(event_type, **data)
        self.scribe.rejected(self.tenant, code)

    # --- requests ---------------------------------------------------------------------------------------------------

    def account(self, name: str, account_type: str, **more: Any) -> None:
        self.scribe.publish(self.tenant, "account.create.v1", {"name": name, "type": account_type, **more})
        self.scribe.obeyed()

    def freeze(self, name: str) -> None:
        key = f"freeze-{name}"
        data = {"name": name, "status": "frozen"}
        self.scribe.publish(self.tenant, "account.update.v1", data, idempotency_key=key)
        self.scribe.obeyed()

    def entry(self, key: str, description: str, *legs: Leg, refused: str | None = None) -> str:
        """Ask for an entry under this idempotency key; `refused`: the code with which it must be."""
        postings = [{"account": account, "amount": amount, "currency": self.currency} for account, amount in legs]
        data = {"postings": postings, "description": description}
        event_id = self.scribe.publish(self.tenant, "entry.post.v1", data, idempotency_key=key)
        if refused:
            self.scribe.rejected(self.tenant, refused)
        else:
            self._posted("posted", *legs)
            self.scribe.obeyed()
        return event_id

    def entry_reversed(self, key: str, description: str, *legs: Leg) -> None:
        """Ask for the opposite of the entry with this idempotency key, which had these legs."""
        data = {"entry_id": "$entry_id", "description": description}
        self.scribe.publish(self.tenant, "entry.reverse.v1", data, entry_of=key)
        self._posted("reversal", *((account, -amount) for account, amount in legs))
        self.scribe.obeyed()
