"""What the process says of itself: log lines, as text or as JSON."""

from __future__ import annotations

import json
import logging
import sys
from datetime import UTC, datetime

from infra.kafka.connection import quiet_aiokafka
from infra.ledger import BatchResult
from infra.settings import Settings

log = logging.getLogger(__name__)


class _JsonFormatter(logging.Formatter):
    def format(self, record: logging.LogRecord) -> str:
        """One JSON object a line, for programs."""
        line = {
            "time": datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds"),
            "level": record.levelname,
            "logger": record.name,
            "message": record.getMessage(),
        }
        if record.exc_info:
            line["exception"] = self.formatException(record.exc_info)
        return json.dumps(line, ensure_ascii=False)


def configure_logging(settings: Settings) -> None:
    """Log to stderr, as LEDGER_LOG_FORMAT and LEDGER_LOG_LEVEL say."""
    handler = logging.StreamHandler(sys.stderr)
    if settings.log_format == "json":
        handler.setFormatter(_JsonFormatter())
    else:
        handler.setFormatter(logging.Formatter("%(asctime)s %(levelname)-7s %(message)s"))
    logging.basicConfig(level=settings.log_level.upper(), handlers=[handler], force=True)
    quiet_aiokafka(settings)
    logging.getLogger("alembic").setLevel(logging.WARNING)
    # Its pool writes a traceback for each try to reach a server that is away; who needs the server says so once.
    logging.getLogger("asyncpg").setLevel(logging.ERROR)


class Progress:
    """Says now and then what was done since it was said last."""

    def __init__(self) -> None:
        self._said = BatchResult()

    def say(self, counts: BatchResult, seconds: float) -> None:
        """One line, if anything happened."""
        names = ("applied", "rejected", "parked", "duplicates", "dead_letters")
        since = {name: getattr(counts, name) - getattr(self._said, name) for name in names}
        if not any(since.values()):
            return
        for name in names:
            setattr(self._said, name, getattr(counts, name))
        told = ", ".join(f"{count:,} {name.replace('_', ' ')}" for name, count in since.items() if count)
        log.info("in %.0f s: %s", seconds, told)
