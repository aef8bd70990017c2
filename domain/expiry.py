"""Expiry: what nobody captured in time is given back. The clock's own events, through the same code and lock."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime

from domain.authorization_states import Act, Happening, next_step
from domain.books import Books
from domain.events import Command, Duplicate, Event, Outcome
from domain.holds import release
from domain.keys import Key, natural_key
from domain.needs import Needs
from domain.reservations import HoldStatus, authorization_key, hold_key
from domain.settling import give_back_all

EXPIRY_TYPE = "hold.expired.v1"
EXPIRY_SOURCE = "ledgerstream"


@dataclass(slots=True)
class HoldExpired(Command):
    """A hold, or the hold of an authorization, has reached its end; overtaken by another event it changes nothing."""

    fact = True
    due = True

    expires_at: datetime
    hold_id: str | None = None
    provider: str | None = None
    external_id: str | None = None

    @property
    def key_text(self) -> str:
        """`expire:{hold_id}:{expires_at}`; an authorization's hold goes by the authorization's ids."""
        named = self.hold_id if self.hold_id is not None else f"{self.provider}:{self.external_id}"
        return f"expire:{named}:{self.expires_at.isoformat()}"

    def natural_key(self, tenant_id: str) -> Key:
        ends = self.expires_at.isoformat()
        return natural_key(tenant_id, "expire", self.hold_id, self.provider, self.external_id, ends)

    def needs(self, tenant_id: str, needs: Needs) -> None:
        if self.hold_id is not None:
            needs.holds.add(hold_key(tenant_id, self.hold_id))
        else:
            needs.authorizations.add(self._authorization(tenant_id))

    def decide(self, event: Event, books: Books) -> Outcome:
        if self.hold_id is not None:
            return self._end_hold(event, books, self.hold_id)
        authorization = books.authorizations.get(self._authorization(event.tenant_id))
        if authorization is None:
            return Duplicate()
        step = next_step(authorization, Happening.EXPIRED)
        if step.act is Act.NOTHING or authorization.expires_at != self.expires_at:
            return Duplicate()
        return give_back_all(event, books, authorization)

    def _authorization(self, tenant_id: str) -> Key:
        assert self.provider is not None
        assert self.external_id is not None
        return authorization_key(tenant_id, self.provider, self.external_id)

    def _end_hold(self, event: Event, books: Books, hold_id: str) -> Outcome:
        key = hold_key(event.tenant_id, hold_id)
        hold = books.holds.get(key)
        if hold is None or hold.status is not HoldStatus.PENDING or hold.expires_at != self.expires_at:
            return Duplicate()
        applied = release(books, hold, HoldStatus.EXPIRED)
        applied.hold_id = hold_id
        # A hold that is captured as far as it goes has nothing to give back; that it is over is told all the same.
        applied.result = {"hold_id": hold_id, "status": str(hold.status)}
        books.holds.put(key, hold)
        return applied
