"""What a subscriber saw, in eight bytes an output: enough to find what came twice, never, changed or out of order."""

from __future__ import annotations

from array import array
from collections.abc import Iterator
from hashlib import blake2b

Place = tuple[int, int, int]
_PAGE = 1 << 16


def digest(topic: str, key: bytes | None, value: bytes | None) -> int:
    """Of an output; never 0."""
    text = b"%s\0%s\0%s" % (topic.encode(), key or b"", value or b"")
    return int.from_bytes(blake2b(text, digest_size=8).digest(), "big") or 1


class Seen:
    """Digests by epoch, shard and seq, in pages."""

    def __init__(self) -> None:
        self._pages: dict[Place, array[int]] = {}
        self.count = 0

    def add(self, place: Place, mark: int) -> int:
        """Note an output; the digest that stood there before, else 0."""
        epoch, shard, seq = place
        page = self._pages.get((epoch, shard, seq // _PAGE))
        if page is None:
            page = self._pages[epoch, shard, seq // _PAGE] = array("Q", bytes(8 * _PAGE))
        before = page[seq % _PAGE]
        page[seq % _PAGE] = mark
        self.count += not before
        return before

    def take(self, place: Place) -> int:
        """The digest of an output, which counts as asked for then; 0 where it never came."""
        epoch, shard, seq = place
        page = self._pages.get((epoch, shard, seq // _PAGE))
        if page is None:
            return 0
        found = page[seq % _PAGE]
        page[seq % _PAGE] = 0
        return found

    def left(self) -> Iterator[Place]:
        """What nobody asked for."""
        for (epoch, shard, number), page in sorted(self._pages.items()):
            for offset, mark in enumerate(page):
                if mark:
                    yield epoch, shard, number * _PAGE + offset
