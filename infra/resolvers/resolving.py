"""What the ledger asks before it locks a shard: the categories and lines of credit of each card payment of a batch."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from domain.authorizations import AuthorizationAdvised, AuthorizationRequested
from domain.events import Event
from domain.reservations import Resolution
from infra.records import Origin
from infra.resolvers.pending import Answer, Merchant, PendingTransaction, Question
from infra.resolvers.rules import Rule, matches
from infra.resolvers.sandbox import Sandbox
from schemas.wire import with_resolution

OFF = "none"
"""The category resolver of this name is none: the account alone decides."""
_COMMON = ("provider", "external_id", "amount", "currency", "card_id", "account", "hold_amount", "expires_at")


@dataclass(slots=True)
class CreditData:
    """What the default resolvers go by. `lines`: (tenant, card) to the lines of the card's owner, by category."""

    categories: Mapping[str, Sequence[tuple[str, Sequence[Rule]]]] = field(default_factory=dict)
    """The code and the rules of each category of a tenant."""
    lines: Mapping[tuple[str, str], Mapping[str, str]] = field(default_factory=dict)


ReadCredit = Callable[[int, set[tuple[str, str]]], Awaitable[CreditData]]
"""Reads what stands on a shard about these (tenant, card), in one go. Raises: TransientError."""


class Resolvers:
    """Answers once for each request and advice; what it answered is journaled with the event."""

    def __init__(
        self, read_credit: ReadCredit, *, categories: str | None = None, lines: str | None = None, budget: float = 0.05
    ) -> None:
        """`categories`, `lines`: custom ones, as `package.module:Class`; None: the default; `none`: no categories."""
        self._read_credit = read_credit
        self._off = categories == OFF
        named = {"categories": categories, "lines": lines}
        custom = {role: name for role, name in named.items() if name is not None}
        self._custom = frozenset(custom)
        self._sandbox = Sandbox(custom, budget=budget) if custom and not self._off else None

    async def start(self) -> None:
        """Raises: SettingsError where a name leads to nothing that can be made."""
        if self._sandbox is not None:
            await self._sandbox.start()

    async def close(self) -> None:
        if self._sandbox is not None:
            await self._sandbox.close()

    @property
    def by_data_alone(self) -> bool:
        """Whether `answer` is enough for every card payment, and none needs `resolve`."""
        return not self._custom and not self._off

    def by_data(self, events: Sequence[Event]) -> list[Event]:
        """The card payments without a resolution that the data alone answer: what `answer` is for."""
        return [event for event in events if _is_open(event)] if self.by_data_alone else []

    def cards_of(self, asked: Sequence[Event]) -> set[tuple[str, str]]:
        """Tenant and card of each: whose credit `answer` goes by."""
        return {(pending.tenant_id, pending.card_id) for pending in map(_pending, asked)}

    def answer(self, asked: Sequence[Event], credit: CreditData) -> None:
        """Give those of `by_data` their resolutions, by what stands in the books."""
        for event in asked:
            pending = _pending(event)
            question = Question(pending, self._by_rules(pending, credit))
            answer = Answer(question.categories or frozenset())
            _keep(event, self._resolution(question, answer, credit))

    async def resolve(self, events: Sequence[Event], shard: int) -> None:
        """Give each card payment among the events its resolution, unless it has one. Raises: TransientError.

        What the data alone answer may be left to `answer`, which takes no round trip of its own.
        """
        asked = [event for event in events if _is_open(event)]
        if not asked:
            return
        if self._off:
            resolutions = [Resolution(off=True)] * len(asked)
        else:
            resolutions = await self._resolve([_pending(event) for event in asked], shard)
        for event, resolution in zip(asked, resolutions, strict=True):
            _keep(event, resolution)

    async def _resolve(self, pendings: Sequence[PendingTransaction], shard: int) -> list[Resolution]:
        credit = CreditData()
        if self._custom != {"categories", "lines"}:
            credit = await self._read_credit(shard, {(pending.tenant_id, pending.card_id) for pending in pendings})
        questions = [Question(pending, self._by_rules(pending, credit)) for pending in pendings]
        if self._sandbox is None:
            answers = [Answer(question.categories or frozenset()) for question in questions]
        else:
            answers = await self._sandbox.ask(questions)
        return [self._resolution(*both, credit) for both in zip(questions, answers, strict=True)]

    def _by_rules(self, pending: PendingTransaction, credit: CreditData) -> frozenset[str] | None:
        """The categories by their own rules; None where custom code says them."""
        if "categories" in self._custom:
            return None
        known = credit.categories.get(pending.tenant_id, ())
        return frozenset(code for code, rules in known if matches(rules, pending.merchant))

    def _resolution(self, question: Question, answer: Answer, credit: CreditData) -> Resolution:
        if answer.failed is not None:
            return Resolution(failed=True)
        categories = answer.categories if question.categories is None else question.categories
        if "lines" in self._custom:
            return Resolution(categories, answer.lines or {})
        pending = question.pending
        theirs = credit.lines.get((pending.tenant_id, pending.card_id), {})
        return Resolution(categories, {code: theirs[code] for code in categories if code in theirs})


def _is_open(event: Event) -> bool:
    command = event.command
    # One that was answered before, and is tried again after Postgres was away, keeps its answer.
    return isinstance(command, AuthorizationRequested | AuthorizationAdvised) and command.resolution == Resolution()


def _keep(event: Event, resolution: Resolution) -> None:
    """Let the event know it, and the journal."""
    event.command.resolution = resolution  # type: ignore[attr-defined]
    origin: Origin = event.carried
    origin.data = with_resolution(origin.data, _journaled(resolution))


def _pending(event: Event) -> PendingTransaction:
    command: Any = event.command
    fields = {name: getattr(command, name) for name in (*_COMMON, "merchant_amount", "merchant_currency")}
    return PendingTransaction(
        **fields,
        tenant_id=event.tenant_id,
        time=event.occurred_at,
        merchant=Merchant(**command.merchant),
        partial_approval=getattr(command, "partial_approval", False),
        respond_by=getattr(command, "respond_by", None),
    )


def _journaled(resolution: Resolution) -> dict[str, Any]:
    """The resolution as `ResolutionV1` reads it."""
    document: dict[str, Any] = {}
    if resolution.categories is not None:
        document["categories"] = sorted(resolution.categories)
    if resolution.lines is not None:
        document["lines"] = dict(resolution.lines)
    return document | {name: True for name in ("failed", "off") if getattr(resolution, name)}
