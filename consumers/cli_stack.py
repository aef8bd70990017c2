"""`ledgerstream stack`: a real Kafka and a real Postgres in the background, for whoever has neither."""

from __future__ import annotations

import os
import sys
from pathlib import Path

import click

from infra.devstack import RunningStack, StackError, default_data, down, env_lines, named_in_environment, status, up
from infra.settings import Settings, SettingsError, read_settings

_data_option = click.option(
    "--data",
    type=click.Path(file_okay=False, path_type=Path),
    help="The stack's directory.  [default: $LEDGER_DATA, else ~/.local/share/ledgerstream]",
)


@click.group()
def stack() -> None:
    """Start, stop and find a Kafka and a Postgres of your own."""


@stack.command("up")
@_data_option
def up_command(data: Path | None) -> None:
    """Start Postgres and Kafka in the background; nothing where they run."""
    running = _named() or _started(data, _settings())
    click.echo(f"Postgres  {running.database_url}\nKafka     {running.kafka_bootstrap}")
    if running.kind == "environment":
        click.echo("These are named in the environment; unset them for a stack of your own.", err=True)
    else:
        click.echo(f'For this shell:  eval "$({_invocation("env", data)})"', err=True)


@stack.command("down")
@_data_option
@click.option("--wipe", is_flag=True, help="Remove the data, too.")
def down_command(data: Path | None, wipe: bool) -> None:
    """Stop Postgres and Kafka; their data stays, unless wiped."""
    settings = _settings()
    directory = data or default_data()
    try:
        down(directory, kind=settings.stack, wipe=wipe)
    except StackError as exc:
        raise _failed(exc) from exc
    click.echo(f"The stack in {directory} is {'gone, data and all' if wipe else 'stopped; its data stays'}.", err=True)


@stack.command("env")
@_data_option
def env_command(data: Path | None) -> None:
    """Print `export LEDGER_…` lines for a shell: eval "$(ledgerstream stack env)"."""
    directory = data or default_data()
    try:
        running = status(directory, kind=_settings().stack)
    except StackError as exc:
        raise _failed(exc) from exc
    if running is None:
        click.echo(f'No stack runs in {directory}; start it with "{_invocation("up", data)}".', err=True)
        sys.exit(1)
    click.echo("\n".join(env_lines(running)))


def show_progress(line: str) -> None:
    """Progress for people, on stderr: on a terminal, a line that counts up stays one line."""
    if not sys.stderr.isatty():
        click.echo(line, err=True)
        return
    counts = " of " in line and line.endswith(" MB")
    click.echo(f"\r\x1b[K{line}", err=True, nl=not counts)


def _started(data: Path | None, settings: Settings) -> RunningStack:
    try:
        return up(data or default_data(), kind=settings.stack, progress=show_progress)
    except StackError as exc:
        raise _failed(exc) from exc


def _named() -> RunningStack | None:
    try:
        return named_in_environment(os.environ)
    except StackError as exc:
        raise _failed(exc) from exc


def _settings() -> Settings:
    try:
        return read_settings()
    except SettingsError as exc:
        raise _failed(exc) from exc


class _OperatorError(click.ClickException):
    """Something that the operator has to mend."""

    exit_code = 2


def _failed(exc: Exception) -> click.ClickException:
    return _OperatorError(str(exc))


def _invocation(command: str, data: Path | None) -> str:
    return f"ledgerstream stack {command}" + (f" --data {data}" if data else "")
