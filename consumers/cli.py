"""`ledgerstream`: every command, each loaded when it is asked for."""

from __future__ import annotations

from importlib import import_module
from typing import Any, NamedTuple

import click

PROGRAM = "ledgerstream"
SHELLS = ("bash", "zsh", "fish")
_COMPLETE_VARIABLE = "_LEDGERSTREAM_COMPLETE"


class Lazy(NamedTuple):
    """A command that is imported when it is asked for, so that help and completion need not wait for the rest."""

    module: str
    name: str
    help: str


_SECTIONS: dict[str, dict[str, Lazy]] = {
    "Try it": {
        "demo": Lazy("consumers.cli_run", "demo", "A week of a small marketplace, and what came of it."),
        "stack": Lazy("consumers.cli_stack", "stack", "Start, stop and find a Kafka and a Postgres of your own."),
        "bench": Lazy("consumers.cli_bench", "bench", "How fast it is on this machine."),
        "publish": Lazy("consumers.cli_publish", "publish", "Check JSON lines of events, then publish them."),
    },
    "Run it": {
        "run": Lazy("consumers.cli_run", "run", "Worker, relay and clock in one process."),
        "worker": Lazy("consumers.cli_run", "worker", "Post events to the books."),
        "relay": Lazy("consumers.cli_run", "relay", "Publish what changed."),
        "clock": Lazy("consumers.cli_run", "clock", "End what has run out, and make room for what comes."),
        "migrate": Lazy("consumers.cli_operations", "migrate", "Bring the database to the newest schema."),
    },
    "Read the books": {
        "balance": Lazy("consumers.cli_reads", "balance", "An account's balance, now or at any time."),
        "statement": Lazy("consumers.cli_reads", "statement", "What was posted to an account."),
        "entries": Lazy("consumers.cli_reads", "entries", "Journal entries, in the order of the ledger."),
        "entry": Lazy("consumers.cli_reads", "entry", "One journal entry."),
        "explain": Lazy("consumers.cli_explain", "explain", "Why an entry, a balance, a hold or a card payment is so."),
        "trial-balance": Lazy("consumers.cli_reads", "trial_balance", "All accounts, debits against credits."),
    },
    "Read holds and cards": {
        "hold": Lazy("consumers.cli_cards", "hold", "A part of a balance that is set aside."),
        "authorization": Lazy("consumers.cli_cards", "authorization", "A card payment, its decision and its life."),
        "lines": Lazy("consumers.cli_cards", "lines", "The lines of credit of an owner."),
        "line": Lazy("consumers.cli_cards", "line", "One line of credit, and what is left of it."),
        "categories": Lazy("consumers.cli_cards", "categories", "Which card payments are of which category."),
        "cards": Lazy("consumers.cli_cards", "cards", "Whose card is whose."),
    },
    "Look after it": {
        "verify": Lazy("consumers.cli_operations", "verify", "Prove the books."),
        "recover": Lazy("consumers.cli_recover", "recover", "After a database was restored: a new epoch."),
        "replay": Lazy("consumers.cli_replay", "replay", "Inputs once more, or the journal into an empty database."),
        "republish": Lazy("consumers.cli_republish", "republish", "Publish again what was published before."),
        "digest": Lazy("consumers.cli_digest", "digest", "One hash of all that the ledger knows."),
        "lag": Lazy("consumers.cli_operations", "lag", "What is still to be read and to be published."),
        "rejections": Lazy("consumers.cli_outcomes", "rejections", "Events that were refused, and why."),
        "parked": Lazy("consumers.cli_outcomes", "parked", "Events that wait for something not there yet."),
        "dead-letters": Lazy("consumers.cli_outcomes", "dead_letters", "Records that were no events."),
    },
    "Build on it": {
        "asyncapi": Lazy("consumers.cli_schemas", "asyncapi", "The AsyncAPI document."),
        "schemas": Lazy("consumers.cli_schemas", "schemas", "The types of event and their JSON Schemas."),
        "completion": Lazy("consumers.cli", "completion", "Completion of commands and options for your shell."),
    },
}
COMMANDS = {name: lazy for section in _SECTIONS.values() for name, lazy in section.items()}


class Ledgerstream(click.Group):
    """The commands by section; what a person can mend is told in a line, never as a traceback."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        return list(COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        lazy = COMMANDS.get(cmd_name)
        if lazy is None:
            return None
        command = getattr(import_module(lazy.module), lazy.name)
        assert isinstance(command, click.Command)
        return command

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        if args and args[0] not in COMMANDS and not args[0].startswith("-"):
            ctx.fail(f'no command {args[0]!r}; "{PROGRAM} --help" lists them')
        return super().resolve_command(ctx, args)

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        for section, commands in _SECTIONS.items():
            with formatter.section(section):
                formatter.write_dl([(name, lazy.help) for name, lazy in commands.items()])

    def invoke(self, ctx: click.Context) -> Any:
        try:
            return super().invoke(ctx)
        except Exception as error:
            told = _told(error)
            if told is None:
                raise
            raise told from error


class _NoError(click.ClickException):
    """The answer is no."""

    exit_code = 1


class _OperatorError(click.ClickException):
    """Something that the operator has to mend."""

    exit_code = 2


def _told(error: Exception) -> click.ClickException | None:
    """An expected failure in words, with its exit code; None for what nobody expected."""
    from infra.settings import SettingsError

    names = {kind.__name__ for kind in type(error).__mro__}
    if isinstance(error, SettingsError) or "StackError" in names:
        return _OperatorError(str(error))
    # By name: the modules that define them are loaded only if the command that raised did.
    return _NoError(str(error)) if "NotFound" in names else None


@click.command(cls=Ledgerstream, context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100})
@click.version_option(package_name="ledgerstream", prog_name=PROGRAM)
def cli() -> None:
    """A double-entry payments ledger between Kafka and Postgres: exactly once in, exactly once out.

    Settings are environment variables LEDGER_…; where they name no servers, a stack that is up is used.
    """


@click.command("completion")
@click.argument("shell", type=click.Choice(SHELLS))
def completion(shell: str) -> None:
    """Completion for your shell: eval "$(ledgerstream completion bash)"."""
    from click.shell_completion import get_completion_class

    completer = get_completion_class(shell)
    assert completer is not None
    click.echo(completer(cli, {}, PROGRAM, _COMPLETE_VARIABLE).source())


def main() -> None:
    """The console command."""
    cli.main(prog_name=PROGRAM, complete_var=_COMPLETE_VARIABLE)


if __name__ == "__main__":
    main()
