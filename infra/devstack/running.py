"""A running stack: where its database and its broker are."""

from __future__ import annotations

import shlex
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

Kind = Literal["embedded", "containers", "environment"]


@dataclass(frozen=True, slots=True, kw_only=True)
class RunningStack:
    """`pids` and `data` are of the stacks that we start; servers named in the environment have neither."""

    kind: Kind
    database_url: str
    kafka_bootstrap: str
    pids: dict[str, int] = field(default_factory=dict)
    data: Path | None = None


def env_lines(stack: RunningStack) -> list[str]:
    """Lines for a shell: `eval "$(ledgerstream stack env)"`."""
    return [
        f"export LEDGER_DATABASE_URL={shlex.quote(stack.database_url)}",
        f"export LEDGER_KAFKA_BOOTSTRAP={shlex.quote(stack.kafka_bootstrap)}",
    ]


def silent(line: str) -> None:
    """A progress that tells nobody."""
