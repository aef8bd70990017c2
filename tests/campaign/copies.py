"""Records without a row in the journal: each must have been a duplicate at some time when the ledger may have met it.

A partition is read in the order of its offsets. So a record without a row was met after the row of the record before
it there, and before the row of the record after it: in between, its delivery or one of its keys must have been taken
by the same event. Keys are taken and, by a parked fact that ends refused, given back as rows are heard; so it is asked
when the record may first have been met, and again whenever one of its keys changes.
"""

from __future__ import annotations

from array import array
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from tests.model import Model, fingerprint, keys_of

Event = dict[str, Any]
Partition = tuple[str, int]
"""A topic's short name and a partition of it."""


@dataclass(slots=True)
class _Open:
    """A record that may be met about now, and was not yet known when it was asked."""

    event: Event
    mark: str
    place: tuple[Partition, int]


class Copies:
    """Those of one shard. `ends` has `mine` where a record ended in a row of this shard."""

    def __init__(
        self,
        model: Model,
        ends: Mapping[Partition, array[int]],
        mine: int,
        leftover: Mapping[Partition, Sequence[int]],
        event_of: Callable[[Partition, int], Event],
        prefix: str = "",
    ) -> None:
        self.model = model
        self.left: Counter[str] = Counter()
        """By tenant, those that were not met yet."""
        self._ends, self._mine, self._event_of, self._prefix = ends, mine, event_of, prefix
        self._rest = {partition: iter(offsets) for partition, offsets in leftover.items()}
        self._next = {partition: next(rest, None) for partition, rest in self._rest.items()}
        self._open: defaultdict[Partition, list[_Open]] = defaultdict(list)
        self._watched: defaultdict[tuple[str, tuple[Any, ...]], list[_Open]] = defaultdict(list)
        self._last: dict[Partition, int] = {}

    def begin(self, tenants: Iterable[str]) -> None:
        """Count them by tenant, and open those before the first row of each partition."""
        self.left.update(tenants)
        for partition in self._rest:
            self._open_from(partition, 0)

    def met(self, row: Mapping[str, Any]) -> list[str]:
        """A record with a row is about to be heard: what stands before it has been met; the faults of that."""
        partition, offset = self._place(row)
        faults = [self._lost(each) for each in self._open.pop(partition, ())]
        if self._last.get(partition, -1) >= offset:
            faults.append(f"{partition} {offset} was handled at seq {row['seq']}, after {self._last[partition]}")
        self._last[partition] = offset
        return faults

    def open_after(self, row: Mapping[str, Any]) -> None:
        """What stands behind this record, up to the next with a row, may be met from now on."""
        partition, offset = self._place(row)
        self._open_from(partition, offset + 1)

    def changed(self, tenant: str, events: Iterable[Event]) -> None:
        """These events took keys or gave them back: whoever waits for one of theirs is asked again."""
        if not self._watched:
            return
        for event in events:
            for key in keys_of(event):
                for each in list(self._watched.get((tenant, key), ())) if key is not None else ():
                    if self.model.books[tenant].is_duplicate(each.event, each.mark):
                        self._found(each)

    def end(self) -> list[str]:
        """No more rows: whatever is still open was never known."""
        faults = [self._lost(each) for queue in self._open.values() for each in queue]
        self._open.clear()
        for partition, offset in self._next.items():
            if offset is not None:
                faults.append(f"{partition} {offset} has no end, and stands before no row that was heard")
        return faults

    def _place(self, row: Mapping[str, Any]) -> tuple[Partition, int]:
        return (row["topic"].removeprefix(self._prefix), row["partition"]), row["offset"]

    def _open_from(self, partition: Partition, offset: int) -> None:
        following = self._next.get(partition)
        if following is None:
            return
        try:
            row = self._ends[partition].index(self._mine, offset)
        except ValueError:
            row = len(self._ends[partition])
        while following is not None and following < row:
            self._ask(partition, following)
            following = self._next[partition] = next(self._rest[partition], None)

    def _ask(self, partition: Partition, offset: int) -> None:
        event = self._event_of(partition, offset)
        tenant, mark = event["tenantid"], fingerprint(event)
        if self.model.books[tenant].is_duplicate(event, mark):
            self.left[tenant] -= 1
            return
        opened = _Open(event, mark, (partition, offset))
        self._open[partition].append(opened)
        for key in keys_of(event):
            if key is not None:
                self._watched[tenant, key].append(opened)

    def _found(self, opened: _Open) -> None:
        self._open[opened.place[0]].remove(opened)
        self._close(opened)

    def _lost(self, opened: _Open) -> str:
        event = opened.event
        self._close(opened)
        return f"{event['tenantid']}: {event['type']} {event['id']} at {opened.place} has no end, and is no duplicate"

    def _close(self, opened: _Open) -> None:
        event, tenant = opened.event, opened.event["tenantid"]
        self.left[tenant] -= 1
        for key in keys_of(event):
            if key is not None:
                queue = self._watched[tenant, key]
                queue[:] = [each for each in queue if each is not opened]
                if not queue:
                    del self._watched[tenant, key]
