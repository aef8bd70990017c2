"""Requests about a tenant as a whole: registering it, closing its books through a day."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import date

from domain.books import Books
from domain.events import Applied, Command, Event, Outcome, Rejected
from domain.keys import Key, natural_key
from domain.needs import Needs
from domain.rejections import RejectionCode


@dataclass(slots=True)
class TenantCreate(Command):
    """Register a tenant, by default on the shard of its hash; the shell has brought it to the shard it asked for."""

    fact = False
    taken = RejectionCode.TENANT_EXISTS

    shard: int | None = None

    def natural_key(self, tenant_id: str) -> Key:
        return natural_key(tenant_id, "tenant")

    def needs(self, tenant_id: str, needs: Needs) -> None:
        pass

    def decide(self, event: Event, books: Books) -> Outcome:
        if event.tenant_id in books.known_tenants:
            return Rejected(
                RejectionCode.TENANT_EXISTS, f"tenant {event.tenant_id} lives on shard {books.shard} already"
            )
        if self.shard is not None and self.shard != books.shard:
            return Rejected(
                RejectionCode.TENANT_NOT_FOUND,
                f"there is no shard {self.shard} for tenant {event.tenant_id} to live on",
            )
        return Applied(result={"tenant_id": event.tenant_id, "shard": books.shard})


@dataclass(slots=True)
class PeriodClose(Command):
    """From now on nothing is effective on or before this day, UTC."""

    fact = False

    through: date

    def natural_key(self, tenant_id: str) -> Key | None:
        return None

    def needs(self, tenant_id: str, needs: Needs) -> None:
        pass

    def decide(self, event: Event, books: Books) -> Outcome:
        closed_through = books.closed_through.get(event.tenant_id)
        if closed_through is not None and self.through < closed_through:
            return Rejected(
                RejectionCode.PERIOD_CLOSED, f"the books are closed through {closed_through}; that can't be taken back"
            )
        books.closed_through[event.tenant_id] = self.through
        books.periods_closed.add(event.tenant_id)
        return Applied(result={"through": self.through.isoformat()})
