"""What becomes of each event of a batch, in order: known, applied, rejected or parked; and who comes free by it."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field

from domain.administration import TenantCreate
from domain.books import Books, Claim
from domain.events import Applied, Duplicate, Event, Handled, Outcome, Parked, Rejected
from domain.keys import Key, conflict_key
from domain.rejections import RejectionCode

WAITING_MAX = 1_000
"""How many events may wait for one thing."""

RESUMED_MAX = 5_000
"""How many parked events one database transaction applies; the clock process goes on with the rest."""

PATIENCE_OVER = "its patience is over: what it waits for has not arrived"


@dataclass(slots=True)
class Decided:
    """A batch, decided: each handling in the order of its seq, and how many events were known already."""

    handled: list[Handled] = field(default_factory=list)
    duplicates: int = 0
    left_waiting: set[Key] = field(default_factory=set)
    """What has arrived, with more waiting for it than one transaction takes."""
    _resumed: int = 0


def decide_batch(events: Iterable[Event], books: Books) -> Decided:
    """Decide events in order, each at most once, and after each those that were parked for what it made."""
    decided = Decided()
    for event in events:
        _decide_one(event, books, decided)
        _resume_arrived(books, decided)
    return decided


def resume(events: Iterable[Event], books: Books) -> Decided:
    """Decide parked events whose turn has come, and those that come free by them."""
    decided = Decided()
    for event in events:
        _decide_again(event, books, decided)
        _resume_arrived(books, decided)
    return decided


def expire(events: Iterable[tuple[Event, RejectionCode]], books: Books, *, reason: str = PATIENCE_OVER) -> Decided:
    """Reject parked events whose patience is over, or that are given up for another reason."""
    decided = Decided()
    for event, code in events:
        _end(event, Rejected(code, reason), books, decided)
    return decided


def _decide_one(event: Event, books: Books, decided: Decided) -> None:
    books.begin()
    # An event that was parked in a database transaction that came to nothing must not pass for one that is parked.
    event.parked_seq = None
    known = None if event.command.due else _known(event, books)
    if isinstance(known, Duplicate):
        decided.duplicates += 1
        return
    outcome = known or _judge(event, books)
    if isinstance(outcome, Duplicate):
        # What was due has been overtaken, by a capture say.
        return
    _claim(event, outcome, books)
    _end(event, outcome, books, decided)


def _decide_again(event: Event, books: Books, decided: Decided) -> None:
    books.begin()
    outcome = event.command.decide(event, books)
    assert not isinstance(outcome, Duplicate)
    _end(event, outcome, books, decided)


def _resume_arrived(books: Books, decided: Decided) -> None:
    while books.arrived:
        key = books.arrived.popleft()
        queue = books.waiting.get(key)
        while queue:
            if decided._resumed >= RESUMED_MAX:
                decided.left_waiting.add(key)
                break
            decided._resumed += 1
            _decide_again(queue.popleft(), books, decided)


def _known(event: Event, books: Books) -> Duplicate | Rejected | None:
    """Whether one of the event's keys is taken: by the same, which makes it a duplicate, or by something else."""
    found = False
    for key in _keys(event):
        claim = books.claims.get(key)
        if claim is None:
            continue
        if claim.fingerprint != event.fingerprint:
            return _conflict(event, key, claim, books)
        found = True
    return Duplicate() if found else None


def _keys(event: Event) -> Iterator[Key]:
    yield event.delivery
    if event.natural is not None:
        yield event.natural
    if event.publisher is not None:
        yield event.publisher


def _conflict(event: Event, key: Key, claim: Claim, books: Books) -> Duplicate | Rejected:
    if key == event.delivery:
        again = conflict_key(event.tenant_id, event.source, event.event_id, event.fingerprint)
        if again in books.claims:
            return Duplicate()
        message = f"the event {event.event_id} of {event.source} was here before, with another body"
    elif key == event.natural and event.command.taken is not None:
        # A create that was told so is told once: its delivery, or the key it claimed when refused, may be known by now.
        if _said_before(event, books, event.delivery, event.publisher):
            return Duplicate()
        return Rejected(event.command.taken, "it was made before, with other data", conflicts_with=claim.seq)
    else:
        if _said_before(event, books, event.delivery):
            return Duplicate()
        which = "this business fact" if key == event.natural else f"the key {event.idempotency_key}"
        message = f"{which} was here before, with other data; the first stands"
    return Rejected(RejectionCode.IDEMPOTENCY_CONFLICT, message, conflicts_with=claim.seq)


def _said_before(event: Event, books: Books, *keys: Key | None) -> bool:
    claims = [claim for key in keys if key is not None and (claim := books.claims.get(key)) is not None]
    return any(claim.fingerprint == event.fingerprint for claim in claims)


def _judge(event: Event, books: Books) -> Outcome:
    command = event.command
    if books.registered_only and event.tenant_id not in books.known_tenants and not isinstance(command, TenantCreate):
        return Rejected(
            RejectionCode.TENANT_NOT_FOUND, f"tenant {event.tenant_id} is not registered; publish tenant.create first"
        )
    outcome = command.decide(event, books)
    if isinstance(outcome, Parked) and books.waiting_count.get(outcome.waits_for, 0) >= WAITING_MAX:
        return Rejected(
            RejectionCode.TOO_MANY_PARKED, f"{WAITING_MAX} events wait for {outcome.waits_for_text} already"
        )
    return outcome


def _claim(event: Event, outcome: Applied | Rejected | Parked, books: Books) -> None:
    """Take the keys that this end of an event takes for ever."""
    claim = Claim(books.next_seq, event.fingerprint)
    claimed: list[Key] = []
    if isinstance(outcome, Rejected) and outcome.code is RejectionCode.IDEMPOTENCY_CONFLICT:
        # A conflict claims only its delivery; if that is what was known, the delivery with this body.
        if event.delivery in books.claims:
            claimed.append(conflict_key(event.tenant_id, event.source, event.event_id, event.fingerprint))
        else:
            claimed.append(event.delivery)
    else:
        claimed.append(event.delivery)
        refused = isinstance(outcome, Rejected)
        if event.publisher is not None and not (refused and event.command.fact):
            claimed.append(event.publisher)
        if event.natural is not None and not (refused and (event.command.fact or event.command.taken is not None)):
            claimed.append(event.natural)
    for key in claimed:
        # A create of an id that is taken may carry a key that is taken, too: whoever has it keeps it.
        if key not in books.claims:
            books.claims[key] = claim
            books.new_claims[key] = claim


def _release(event: Event, books: Books) -> None:
    """Give back the keys of a parked fact that ended refused; its delivery stays claimed."""
    for key in (event.natural, event.publisher):
        if key is None:
            continue
        books.claims.pop(key, None)
        if books.new_claims.pop(key, None) is None:
            books.released.add(key)


def _end(event: Event, outcome: Applied | Rejected | Parked, books: Books, decided: Decided) -> None:
    """Note how an event ended, number its outputs, and say what has arrived by it."""
    decided.handled.append(Handled(event, books.next_seq, outcome, resumes=event.parked_seq))
    if event.tenant_id not in books.known_tenants and _makes_tenant(outcome, books):
        books.known_tenants.add(event.tenant_id)
        books.new_tenants.add(event.tenant_id)
    match outcome:
        case Applied():
            if event.arrives is not None:
                if books.waiting.get(event.arrives):
                    books.arrived.append(event.arrives)
                if not books.waiting_whole:
                    decided.left_waiting.add(event.arrives)
            books.next_seq += outcome.outputs
        case Parked():
            event.parked_seq = books.next_seq
            books.waiting.setdefault(outcome.waits_for, deque()).append(event)
            books.waiting_count[outcome.waits_for] = books.waiting_count.get(outcome.waits_for, 0) + 1
            books.next_seq += 1
        case Rejected():
            if event.parked_seq is not None and event.command.fact:
                _release(event, books)
            books.next_seq += 1


def _makes_tenant(outcome: Applied | Rejected | Parked, books: Books) -> bool:
    """Whether the first event of a tenant brings it into being: where tenants are registered only `tenant.create`."""
    if books.registered_only:
        return isinstance(outcome, Applied)
    return not (isinstance(outcome, Rejected) and outcome.code is RejectionCode.TENANT_NOT_FOUND)
