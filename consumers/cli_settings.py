"""The settings of a command: the environment's, else those of the stack that runs in the default directory."""

from __future__ import annotations

from dataclasses import replace

from infra.settings import Settings, read_settings


def settings_of_command() -> Settings:
    """The settings in the environment; where it names no servers, a stack's that is up is taken.

    Raises: SettingsError, StackError.
    """
    settings = read_settings()
    if settings.database_url is not None or settings.kafka_bootstrap is not None:
        return settings
    from infra.devstack import default_data, status

    running = status(default_data(), kind=settings.stack)
    if running is None:
        return settings
    return replace(settings, database_url=running.database_url, kafka_bootstrap=running.kafka_bootstrap)
