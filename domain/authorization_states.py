"""The life of an authorization: what each event does in each state. Drawn in docs/authorizations.md."""

from __future__ import annotations

from enum import StrEnum
from types import MappingProxyType
from typing import NamedTuple

from domain.reservations import Authorization, AuthorizationStatus


class State(StrEnum):
    """UNKNOWN: nothing was heard of it; PENDING: it was confirmed and not decided yet."""

    UNKNOWN = "unknown"
    PENDING = "pending"
    DECLINED = "declined"
    APPROVED = "approved"
    CAPTURED = "captured"
    RELEASED = "released"


class Happening(StrEnum):
    REQUESTED = "requested"
    ADVISED = "advised"
    CONFIRMED = "confirmed"
    ADJUSTED = "adjusted"
    CAPTURED = "captured"
    CAPTURED_FINALLY = "captured (final)"
    FORCE_POSTED = "captured (force_post)"
    REFUNDED = "refunded"
    RELEASED = "released"
    EXPIRED = "expired"


class Act(StrEnum):
    """What is done; DECIDE ends in approved or declined, RELEASE in released once nothing is left."""

    DECIDE = "decide"
    APPROVE = "approve in our place"
    JOIN = "join"
    CONFIRM = "confirm"
    ADJUST = "move lines and hold"
    CAPTURE = "post, settle lines and hold"
    LATE_CAPTURE = "post with a breach, settle lines"
    POST = "post alone"
    REFUND = "post back, lines get back"
    RELEASE = "give back"
    NOTHING = "nothing"
    PARK = "park"


class Step(NamedTuple):
    act: Act
    to: State


_S, _A = State, Act


def _row(state: State, *steps: tuple[Act, State]) -> dict[tuple[State, Happening], Step]:
    return {(state, what): Step(*step) for what, step in zip(Happening, steps, strict=True)}


def _undecided(state: State) -> dict[tuple[State, Happening], Step]:
    park = (_A.PARK, state)
    return _row(
        state,
        (_A.DECIDE, _S.APPROVED),
        (_A.APPROVE, _S.APPROVED),
        (_A.CONFIRM, _S.PENDING),
        park,
        park,
        park,
        (_A.POST, _S.CAPTURED),
        park,
        park,
        (_A.NOTHING, state),
    )


STEPS = MappingProxyType(
    {
        **_undecided(_S.UNKNOWN),
        **_undecided(_S.PENDING),
        **_row(
            _S.DECLINED,
            (_A.JOIN, _S.DECLINED),
            (_A.APPROVE, _S.APPROVED),
            (_A.CONFIRM, _S.DECLINED),
            (_A.NOTHING, _S.DECLINED),
            (_A.POST, _S.DECLINED),
            (_A.POST, _S.DECLINED),
            (_A.POST, _S.DECLINED),
            (_A.REFUND, _S.DECLINED),
            (_A.NOTHING, _S.DECLINED),
            (_A.NOTHING, _S.DECLINED),
        ),
        **_row(
            _S.APPROVED,
            (_A.JOIN, _S.APPROVED),
            (_A.JOIN, _S.APPROVED),
            (_A.CONFIRM, _S.APPROVED),
            (_A.ADJUST, _S.APPROVED),
            (_A.CAPTURE, _S.APPROVED),
            (_A.CAPTURE, _S.CAPTURED),
            (_A.CAPTURE, _S.CAPTURED),
            (_A.REFUND, _S.APPROVED),
            (_A.RELEASE, _S.RELEASED),
            (_A.RELEASE, _S.RELEASED),
        ),
        **_row(
            _S.CAPTURED,
            (_A.JOIN, _S.CAPTURED),
            (_A.JOIN, _S.CAPTURED),
            (_A.CONFIRM, _S.CAPTURED),
            (_A.NOTHING, _S.CAPTURED),
            (_A.LATE_CAPTURE, _S.CAPTURED),
            (_A.LATE_CAPTURE, _S.CAPTURED),
            (_A.LATE_CAPTURE, _S.CAPTURED),
            (_A.REFUND, _S.CAPTURED),
            (_A.NOTHING, _S.CAPTURED),
            (_A.NOTHING, _S.CAPTURED),
        ),
        **_row(
            _S.RELEASED,
            (_A.JOIN, _S.RELEASED),
            (_A.JOIN, _S.RELEASED),
            (_A.CONFIRM, _S.RELEASED),
            (_A.ADJUST, _S.APPROVED),
            (_A.LATE_CAPTURE, _S.CAPTURED),
            (_A.LATE_CAPTURE, _S.CAPTURED),
            (_A.LATE_CAPTURE, _S.CAPTURED),
            (_A.REFUND, _S.RELEASED),
            (_A.NOTHING, _S.RELEASED),
            (_A.NOTHING, _S.RELEASED),
        ),
    }
)
"""Every cell, the ones that change nothing too."""


def state_of(authorization: Authorization | None) -> State:
    return State.UNKNOWN if authorization is None else State(authorization.status)


def status_of(state: State) -> AuthorizationStatus:
    return AuthorizationStatus(state)


def next_step(authorization: Authorization | None, what: Happening) -> Step:
    return STEPS[state_of(authorization), what]


def drawing() -> str:
    """The table as it stands in the documentation."""
    lines = ["| | " + " | ".join(State) + " |", "|---" * (len(State) + 1) + "|"]
    for what in Happening:
        cells = []
        for state in State:
            act, to = STEPS[state, what]
            arrow = "" if to is state else " → approved or declined" if act is Act.DECIDE else f" → {to}"
            cells.append(f"{act}{arrow}")
        lines.append(f"| **{what}** | " + " | ".join(cells) + " |")
    return "\n".join(lines)
