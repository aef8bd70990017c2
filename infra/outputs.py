"""The outputs of a batch: their bytes, their seqs, and the hash chain over them.

Built from text, not from models: half of the hot path is spent here. Tests hold every output against the models of
`schemas/outputs.py`.

The chain: the head after an output is BLAKE2b-256 of the head before, the output up to its free text, and the
BLAKE2b-256 of each member with free text (`,"description":…`, `,"metadata":…`, `,"message":…`: they stand last); so a
text can be forgotten and the chain still be checked. `balance.changed` follows from the entries and leaves the head
as it is.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from hashlib import blake2b

import orjson

from domain.accounts import Account
from domain.events import (
    Applied,
    AuthorizationChange,
    BalanceChange,
    Decision,
    Entry,
    Event,
    Handled,
    Parked,
    Rejected,
)
from infra import outbox
from infra.kafka.partitioner import partition_of
from infra.outbox import TOPIC_INDEX, TYPE_INDEX, Output, frame_plain
from infra.records import DeadLetter, Origin

HEADERS_BYTES_RESERVED = 65_536
"""What the headers of a dead letter and the framing of a record may add to its value."""

_BALANCES, _ENTRIES = TOPIC_INDEX["balances"], TOPIC_INDEX["entries"]
_DECISIONS = TOPIC_INDEX["decisions"]
_OUTCOMES, _DEAD_LETTERS = TOPIC_INDEX["outcomes"], TOPIC_INDEX["dead-letters"]
_BALANCE_CHANGED = TYPE_INDEX["balance.changed.v1"]


class OutputTooLargeError(ValueError):
    """An output is larger than its topic takes."""


def quoted(text: str) -> str:
    """A text as JSON."""
    return orjson.dumps(text).decode()


def rfc3339(moment: datetime) -> str:
    """A time as it stands in every output: UTC, microseconds, `Z`."""
    if moment.tzinfo is not UTC:
        moment = moment.astimezone(UTC)
    return moment.isoformat(timespec="microseconds")[:-6] + "Z"


class StreamKey:
    """What every output about one balance begins with, kept beside the balance."""

    __slots__ = ("head", "key", "leg", "partition", "sign")

    def __init__(self, account: Account, currency: str, partitions: int) -> None:
        self.key = f"{account.account_id}:{currency}".encode()
        self.partition = partition_of(self.key, partitions)
        names = f'"account_id":"{account.account_id}","account":{quoted(account.name)}'
        unit = quoted(currency)
        self.head = f'{names},"currency":{unit},"type":"{account.type}"'
        self.leg = f'{names},"currency":{unit}'
        self.sign = account.natural(1)


class OutputWriter:
    """Writes the outputs of one batch of one shard, in order."""

    def __init__(
        self,
        *,
        epoch: int,
        shard: int,
        next_seq: int,
        head: bytes,
        recorded_at: datetime,
        partitions: Mapping[str, int],
        value_bytes_max: Mapping[str, int],
    ) -> None:
        self.head = head
        self.next_seq = next_seq
        self.frames: list[bytes] = []
        self._place = f"{epoch}-{shard}-"
        self._begin = f'{{"specversion":"1.0","id":"{self._place}'
        self._recorded_at = rfc3339(recorded_at)
        self._partitions = partitions
        self._value_bytes_max = value_bytes_max
        self._balance_partitions = partitions["balances"]
        self._tenant_partitions: dict[tuple[str, str], tuple[bytes, int]] = {}
        self._openings: dict[tuple[str, str], str] = {}

    def handled(self, handled: Handled, differs: Sequence[str] = ()) -> None:
        """Write the outputs of one handling, which begin at its seq."""
        if handled.seq != self.next_seq:
            raise AssertionError(f"an event's outputs begin at {handled.seq}, but {self.next_seq} is next")
        event, outcome = handled.event, handled.outcome
        match outcome:
            case Applied():
                self._applied(event, outcome)
            case Rejected():
                told = f',"differs":{orjson.dumps(list(differs)).decode()}' if differs else ""
                self._outcome(
                    event,
                    "event.rejected.v1",
                    f'"code":"{outcome.code}"{told},"event":{_event_reference(event)}',
                    message=outcome.message,
                )
            case Parked():
                self._outcome(
                    event,
                    "event.parked.v1",
                    f'"code":"{outcome.code}","waits_for":{quoted(outcome.waits_for_text)}'
                    f',"event":{_event_reference(event)}',
                )

    def dead_letter(self, letter: DeadLetter, group: str) -> None:
        """Write a record back as it was, with where it stood and what was wrong with it."""
        record = letter.record
        facts = {
            "dlq-topic": record.topic,
            "dlq-partition": str(record.partition),
            "dlq-offset": str(record.offset),
            "dlq-timestamp": str(record.timestamp_ms),
            "dlq-code": letter.code,
            "dlq-message": letter.message,
            "dlq-group": group,
        }
        headers = [*record.headers, *((name, text.encode()) for name, text in facts.items())]
        value = record.value or b""
        self._advance(
            orjson.dumps([self._place + str(self.next_seq), facts]),
            (blake2b(value, digest_size=32).digest(),),
        )
        partitions = self._partitions["dead-letters"]
        partition = record.partition % partitions if record.key is None else partition_of(record.key, partitions)
        output = Output(_DEAD_LETTERS, outbox.DEAD_LETTER, partition, record.key, None, headers, record.value)
        self.frames.append(outbox.frame(output))
        self.next_seq += 1

    def _applied(self, event: Event, applied: Applied) -> None:
        entry = applied.entry
        cause = f'{{"type":"{event.type}","id":{quoted(event.event_id)},"source":{quoted(event.source)}}}'
        if entry is None:
            effective_at, named = self._recorded_at, ""
        else:
            effective_at = rfc3339(entry.effective_at)
            entry_id = str(entry.entry_id)
            named = f',"entry_id":"{entry_id}"'
            self._entry(event, entry, entry_id, effective_at, cause)
        if applied.hold_id is not None:
            named += f',"hold_id":{quoted(applied.hold_id)}'
        if applied.authorization is not None:
            named += f',"authorization":{{{_ids(*applied.authorization)}}}'
        if applied.changes:
            self._balances(event, applied.changes, effective_at, named, cause)
        if applied.decision is not None:
            self._decision(event, applied.decision, cause)
        if applied.changed is not None:
            self._authorization(event, applied.changed, cause)
        if applied.result is not None:
            result = orjson.dumps(applied.result).decode()
            self._outcome(event, "command.applied.v1", f'"event":{_event_reference(event)},"result":{result}')

    def _entry(self, event: Event, entry: Entry, entry_id: str, effective_at: str, cause: str) -> None:
        legs = ",".join(
            [
                f'{{{(account.balances[currency].memo or self._make_key(account, currency)).leg},"amount":{amount}'
                f',"posted_after":{posted_after},"version":{version}}}'
                for account, currency, amount, posted_after, version in entry.postings
            ]
        )
        references = ",".join([f'"{name}":{quoted(value)}' for name, value in entry.references.items()])
        reverses = "" if entry.reverses is None else f',"reverses":"{entry.reverses}"'
        breaches = ",".join([f'"{code}"' for code in entry.breaches])
        occurred_at = effective_at if entry.occurred_at == entry.effective_at else rfc3339(entry.occurred_at)
        core = (
            f'"entry_id":"{entry_id}","seq":{self.next_seq},"kind":"{entry.kind}","references":{{{references}}}'
            f',"effective_at":"{effective_at}","recorded_at":"{self._recorded_at}","occurred_at":"{occurred_at}"'
            f'{reverses},"pending":{"true" if entry.pending else "false"},"breaches":[{breaches}]'
            f',"cause":{cause},"postings":[{legs}]'
        )
        free = {}
        if entry.description is not None:
            free["description"] = quoted(entry.description)
        if entry.metadata is not None:
            free["metadata"] = entry.metadata.decode()
        self._for_tenant(event, _ENTRIES, "entries", "entry.recorded.v1", core, free)

    def _balances(
        self, event: Event, changes: Sequence[BalanceChange], effective_at: str, named: str, cause: str
    ) -> None:
        begin, opening, trace = self._begin, self._opening(event, "balance.changed.v1"), _trace(event)
        end = f'{named},"cause":{cause},"effective_at":"{effective_at}","recorded_at":"{self._recorded_at}"}}}}'
        seq = self.next_seq
        for (
            account,
            currency,
            balance,
            posted_change,
            pending_change,
            held_change,
            posted,
            pending,
            held,
            version,
        ) in changes:
            key: StreamKey = balance.memo or self._make_key(account, currency)
            value = (
                f'{begin}{seq}{opening}{key.head},"version":{version},"posted":{posted},"pending":{pending}'
                f',"held":{held},"available":{key.sign * posted - held}'
                f',"change":{{"posted":{posted_change},"held":{held_change},"pending":{pending_change}}}{end}'
            ).encode()
            self.frames.append(frame_plain(_BALANCES, _BALANCE_CHANGED, key.partition, key.key, trace, value))
            seq += 1
        self.next_seq = seq

    def _make_key(self, account: Account, currency: str) -> StreamKey:
        """The beginning of what is said of a balance, made once as long as the account stays in memory."""
        key = account.balances[currency].memo = StreamKey(account, currency, self._balance_partitions)
        return key

    def _decision(self, event: Event, decision: Decision, cause: str) -> None:
        told: dict[str, object] = {
            "decision": decision.decision,
            "decided_by": decision.decided_by,
            "reason": decision.reason,
            "reasons": decision.reasons,
            "amount": decision.amount,
            "approved_amount": decision.approved_amount,
            "hold_amount": decision.hold_amount,
            "currency": decision.currency,
            "expense_categories": decision.categories,
            "lines_of_credit": [{"id": line_id, "available": available} for line_id, available in decision.lines],
            "account": None if decision.account is None else decision.account._asdict(),
        }
        members = ",".join(
            f'"{name}":{orjson.dumps(value).decode()}' for name, value in told.items() if value is not None
        )
        core = f'{members},"cause":{cause},"decided_at":"{self._recorded_at}"'
        self._for_authorization(event, "authorization.decided.v1", decision.provider, decision.external_id, core)

    def _authorization(self, event: Event, change: AuthorizationChange, cause: str) -> None:
        superseded = ',"superseded":true' if change.superseded else ""
        core = (
            f'"status":"{change.status}","confirmed":{"true" if change.confirmed else "false"}'
            f',"authorized":{change.authorized},"captured":{change.captured},"refunded":{change.refunded}{superseded}'
            f',"cause":{cause},"recorded_at":"{self._recorded_at}"'
        )
        self._for_authorization(event, "authorization.changed.v1", change.provider, change.external_id, core)

    def _for_authorization(self, event: Event, kind: str, provider: str, external_id: str, core: str) -> None:
        canonical = f"{self._begin}{self.next_seq}{self._opening(event, kind)}{_ids(provider, external_id)},{core}"
        self._advance(canonical.encode(), ())
        value = f"{canonical}}}}}".encode()
        if len(value) + HEADERS_BYTES_RESERVED > self._value_bytes_max["decisions"]:
            raise OutputTooLargeError(f"a {kind} of {len(value)} bytes is more than decisions takes")
        key = f"{provider}:{external_id}".encode()
        partition = partition_of(key, self._partitions["decisions"])
        self._emit(_DECISIONS, TYPE_INDEX[kind], partition, key, event, value)

    def _outcome(self, event: Event, kind: str, core: str, message: str | None = None) -> None:
        free = {} if message is None else {"message": quoted(message)}
        self._for_tenant(event, _OUTCOMES, "outcomes", kind, core, free)

    def _for_tenant(
        self, event: Event, topic: int, topic_name: str, kind: str, core: str, free: Mapping[str, str]
    ) -> None:
        place = (event.tenant_id, topic_name)
        found = self._tenant_partitions.get(place)
        if found is None:
            tenant = event.tenant_id.encode()
            found = self._tenant_partitions[place] = (tenant, partition_of(tenant, self._partitions[topic_name]))
        canonical = f"{self._begin}{self.next_seq}{self._opening(event, kind)}{core}".encode()
        texts = [f',"{name}":{text}'.encode() for name, text in free.items()] if free else ()
        self._advance(canonical, [blake2b(text, digest_size=32).digest() for text in texts])
        value = b"".join((canonical, *texts, b"}}"))
        if len(value) + HEADERS_BYTES_RESERVED > self._value_bytes_max[topic_name]:
            raise OutputTooLargeError(f"a {kind} of {len(value)} bytes is more than {topic_name} takes")
        key, partition = found
        self._emit(topic, TYPE_INDEX[kind], partition, key, event, value)

    def _opening(self, event: Event, kind: str) -> str:
        """The envelope between the seq in its id and its data: the same for a tenant throughout a batch."""
        place = (kind, event.tenant_id)
        rest = self._openings.get(place)
        if rest is None:
            rest = self._openings[place] = (
                f'","source":"ledgerstream","type":"{kind}","time":"{self._recorded_at}"'
                f',"tenantid":"{event.tenant_id}","datacontenttype":"application/json"'
            )
        trace = "" if event.traceparent is None else f',"traceparent":"{event.traceparent}"'
        return f'{rest}{trace},"data":{{'

    def _advance(self, canonical: bytes, free_hashes: Sequence[bytes]) -> None:
        self.head = blake2b(b"".join((self.head, canonical, *free_hashes)), digest_size=32).digest()

    def _emit(self, topic: int, kind: int, partition: int, key: bytes, event: Event, value: bytes) -> None:
        self.frames.append(frame_plain(topic, kind, partition, key, _trace(event), value))
        self.next_seq += 1


def _trace(event: Event) -> bytes:
    return b"" if event.traceparent is None else event.traceparent.encode()


def _ids(provider: str, external_id: str) -> str:
    """Which authorization, as it stands in an output."""
    return f'"provider":{quoted(provider)},"external_id":{quoted(external_id)}'


def _event_reference(event: Event) -> str:
    """Which event, as outcomes name it."""
    reference: dict[str, str | int] = {"type": event.type, "id": event.event_id, "source": event.source}
    if event.idempotency_key is not None:
        reference["idempotency_key"] = event.idempotency_key
    origin: Origin = event.carried
    if origin.record is not None:
        reference |= {
            "topic": origin.record.topic,
            "partition": origin.record.partition,
            "offset": origin.record.offset,
        }
    return orjson.dumps(reference).decode()
