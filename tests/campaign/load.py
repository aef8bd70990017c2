"""What is published: stories of one to a few events, each a function of the seed and its number alone.

A record is named by its story's number, its place in it and which copy it is; so whoever holds the name can write the
event again, and nobody has to keep a million of them.
"""

from __future__ import annotations

import random

import orjson

from tests.campaign.stories import MONEY
from tests.campaign.stories_cards import CARDS, open_books
from tests.campaign.writer import Drafted, Event, Name, Writer

TENANTS = 6
STORIES_A_GENERATION = 12_000
"""After so many stories there are new tenants: what is known of the old ones can be let go."""

_TELLERS = [teller for weight, teller in (*MONEY, *CARDS) for _ in range(weight)]


def story(seed: int, number: int) -> list[Drafted]:
    """The records of a story, in the order in which they are published. The first of a generation open its books."""
    chance = random.Random(f"{seed}:{number}")
    generation, place = divmod(number, STORIES_A_GENERATION)
    first = place < TENANTS
    writer = Writer(chance, number, f"g{generation}-{place if first else chance.randrange(TENANTS)}")
    (open_books if first else chance.choice(_TELLERS))(writer)
    return writer.drafted


def record(seed: int, name: Name) -> Drafted:
    """The record of this name; a copy has another id."""
    first = next(each for each in story(seed, name.number) if each.name == Name(name.number, name.index, 0))
    return again(first, name.copy)


def again(drafted: Drafted, copy: int) -> Drafted:
    """The same event under another id."""
    if copy == 0 or drafted.event is None:
        return drafted._replace(name=drafted.name._replace(copy=copy))
    event = drafted.event | {"id": f"{drafted.event['id']}~{copy}"}
    return drafted._replace(name=drafted.name._replace(copy=copy), value=orjson.dumps(event), event=event)


__all__ = ["STORIES_A_GENERATION", "TENANTS", "Drafted", "Event", "Name", "again", "record", "story"]
