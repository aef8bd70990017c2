"""What a worker keeps in memory of a shard between two batches."""

from __future__ import annotations

from dataclasses import dataclass

from domain.accounts import Account
from domain.books import Books
from domain.ids import AccountId
from domain.keys import Key
from domain.reservations import ExpenseCategory, LineOfCredit
from infra.postgres.load import ShardState


@dataclass(slots=True)
class Memory:
    """What was in memory after the last commit of a shard: true exactly if the shard's row still stands there."""

    epoch: int
    next_seq: int
    head: bytes
    accounts: dict[tuple[str, str], Account]
    accounts_by_id: dict[AccountId, Account]
    lines: dict[Key, LineOfCredit]
    categories: dict[Key, ExpenseCategory]

    def lend(self, books: Books, state: ShardState) -> None:
        """Give the books what is known already, if it is still true."""
        if (self.epoch, self.next_seq, self.head) == (state.epoch, state.next_seq, state.head):
            books.accounts, books.accounts_by_id = self.accounts, self.accounts_by_id
            books.lines, books.categories = self.lines, self.categories


def memory_of(books: Books, head: bytes, *, accounts_most: int) -> Memory:
    """What is kept of books whose commit was acknowledged; what was loaded first is forgotten first."""
    if len(books.accounts) > accounts_most:
        for place in list(books.accounts)[: len(books.accounts) - accounts_most * 3 // 4]:
            del books.accounts_by_id[books.accounts.pop(place).account_id]
    if len(books.lines) + len(books.categories) > accounts_most:
        books.lines, books.categories = {}, {}
    return Memory(
        books.epoch, books.next_seq, head, books.accounts, books.accounts_by_id, books.lines, books.categories
    )
