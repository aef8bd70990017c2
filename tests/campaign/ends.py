"""How each published record ended: in which shard's journal, as a dead letter, or in no row at all."""

from __future__ import annotations

from array import array
from collections.abc import Mapping
from functools import lru_cache

from tests.campaign.copies import Event, Partition
from tests.campaign.load import Drafted, Name, again, story

UNREAD, DEAD, FIRST_SHARD = 0, 1, 2


class Ends:
    """Each published record by topic, partition and offset: who it is, and how it ended."""

    def __init__(self, records: Mapping[Partition, array[int]], prefix: str, seed: int) -> None:
        self.prefix, self.seed, self.records = prefix, seed, records
        self.ends = {place: array("B", bytes(len(names))) for place, names in records.items()}

    def place_of(self, topic: str, partition: int) -> Partition:
        return topic.removeprefix(self.prefix), partition

    def end(self, topic: str, partition: int, offset: int, how: int) -> str | None:
        """Note a record's end; what is wrong with that."""
        place = self.place_of(topic, partition)
        names = self.records.get(place)
        if names is None or offset >= len(names) or names[offset] < 0:
            return "which nobody published"
        if self.ends[place][offset]:
            return "which has an end already"
        self.ends[place][offset] = how
        return None

    def event(self, place: Partition, offset: int) -> Event | None:
        """What was published there; None where it is no event, or nothing is there."""
        names = self.records.get(place)
        if names is None or offset >= len(names) or names[offset] < 0:
            return None
        return event_of(self.seed, names[offset])

    def leftover(self) -> tuple[list[tuple[Partition, int, str]], list[tuple[Partition, int]]]:
        """Events without a row, with their tenant; and the records that are no events, and no dead letters either."""
        events, faults = [], []
        for place, ends in self.ends.items():
            for offset, end in enumerate(ends):
                if end != UNREAD or self.records[place][offset] < 0:
                    continue
                event = self.event(place, offset)
                if event is None:
                    faults.append((place, offset))
                else:
                    events.append((place, offset, str(event["tenantid"])))
        return events, faults


def event_of(seed: int, packed: int) -> Event | None:
    """The event of this name."""
    name = Name.unpack(packed)
    return again(_story(seed, name.number)[name.index], name.copy).event


@lru_cache(maxsize=10_000)
def _story(seed: int, number: int) -> dict[int, Drafted]:
    return {drafted.name.index: drafted for drafted in story(seed, number)}


__all__ = ["DEAD", "FIRST_SHARD", "UNREAD", "Ends", "event_of"]
