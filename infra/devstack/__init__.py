"""A real Postgres and a real Kafka for development, tests and the demo, on a machine that has neither."""

from __future__ import annotations

from infra.devstack.choice import named_in_environment
from infra.devstack.embedded import (
    kill_kafka,
    kill_postgres,
    restart_kafka,
    restart_postgres,
    start_kafka,
    start_postgres,
    stop_kafka,
    stop_postgres,
)
from infra.devstack.errors import StackError
from infra.devstack.places import Progress, cache_dir, default_data
from infra.devstack.running import RunningStack, env_lines
from infra.devstack.stack import down, status, up

__all__ = [
    "Progress",
    "RunningStack",
    "StackError",
    "cache_dir",
    "default_data",
    "down",
    "env_lines",
    "kill_kafka",
    "kill_postgres",
    "named_in_environment",
    "restart_kafka",
    "restart_postgres",
    "start_kafka",
    "start_postgres",
    "status",
    "stop_kafka",
    "stop_postgres",
    "up",
]
