"""The command line on real books: what programs read, what people see, and how it ends."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import asyncpg
import pytest
from click.testing import CliRunner, Result

from consumers.cli import COMMANDS, cli
from infra.devstack import RunningStack
from infra.settings import Settings
from tests.fixtures.books import NOON, TENANT, LedgerByHand, ledger_by_hand

Run = Callable[..., Result]


@pytest.fixture
async def books(settings: Settings) -> AsyncIterator[LedgerByHand]:
    """Books with a payment in two currencies, a refused event, a parked one and a dead letter."""
    async with ledger_by_hand(settings) as ledger:
        await ledger.pay("p1", 1_000, fees=30, description="Order [5]")
        await ledger.pay("p2", 500, "JPY")
        await ledger.pay("p1", 1_001)
        refund = {"refund_id": "r1", "amount": 5, "currency": "EUR", "customer_id": "c1", "payment_id": "p-later"}
        await ledger.send("refund.succeeded.v1", **refund)
        await ledger.send_record(b"\xffnot json")
        yield ledger


@pytest.fixture
def run(settings: Settings) -> Run:
    """Run one command on this test's ledger."""
    environment = {
        "LEDGER_DATABASE_URL": settings.database_url,
        "LEDGER_KAFKA_BOOTSTRAP": settings.kafka_bootstrap,
        "LEDGER_TOPIC_PREFIX": settings.topic_prefix,
        "COLUMNS": "80",
    }

    def invoke(*arguments: str, stdin: bytes | None = None, **changed: str) -> Result:
        return CliRunner().invoke(cli, arguments, input=stdin, env={**environment, **changed})

    return invoke


def _lines(result: Result) -> list[Any]:
    assert result.exit_code == 0, result.output
    return [json.loads(line) for line in result.stdout.splitlines()]


# --- reads ----------------------------------------------------------------------------------------------------------


def test_balance_prints_a_line_of_json_per_currency(books: LedgerByHand, run: Run) -> None:
    euros, _ = _lines(run("balance", "--tenant", TENANT, "--account", "customer_balance:c1", "--json"))
    account_id = euros.pop("account_id")
    assert len(account_id) == 36
    assert euros == {
        "tenant": TENANT,
        "account": "customer_balance:c1",
        "currency": "EUR",
        "type": "liability",
        "posted": -970,
        "pending": 0,
        "held": 0,
        "available": 970,
        "version": 1,
        "updated_at": "2026-03-02T12:00:00.000000Z",
    }


def test_balance_shows_people_major_units(books: LedgerByHand, run: Run) -> None:
    shown = run("balance", "--tenant", TENANT, "--account", "customer_balance:c1").stdout
    assert "-9.70 EUR" in shown
    assert "500 JPY" in shown
    assert "2026-03-02T12:00:00Z" in shown


def test_a_balance_of_the_past_takes_both_times(books: LedgerByHand, run: Run) -> None:
    asked = ("balance", "--tenant", TENANT, "--account", "platform:cash", "--currency", "EUR", "--json")
    (line,) = _lines(run(*asked, "--at", "2026-03-02T13:00:00+01:00", "--known-at", "2026-03-02T12:00:00Z"))
    assert (line["posted"], line["held"]) == (1_000, None)


def test_statement_prints_the_keys_of_the_contract(books: LedgerByHand, run: Run) -> None:
    asked = ("statement", "--tenant", TENANT, "--account", "customer_balance:c1", "--currency", "JPY", "--json")
    (line,) = _lines(run(*asked))
    entry_id = line.pop("entry_id")
    assert len(entry_id) == 36
    assert line == {
        "time": "2026-03-02T12:00:00.000000Z",
        "description": None,
        "currency": "JPY",
        "debit": 0,
        "credit": 500,
        "balance": 500,
        "opposing_account": "platform:cash",
    }


def test_entries_and_entry_print_the_same_document(books: LedgerByHand, run: Run) -> None:
    first, second = _lines(run("entries", "--tenant", TENANT, "--json"))
    assert _lines(run("entry", first["entry_id"], "--tenant", TENANT, "--json")) == [first]
    assert _lines(run("entries", "--tenant", TENANT, "--cursor", first["entry_id"], "--json")) == [second]


def test_entries_show_people_what_was_posted(books: LedgerByHand, run: Run) -> None:
    shown = run("entries", "--tenant", TENANT, "--payment-id", "p1").stdout
    assert "payment_id=p1" in shown
    assert "Order [5]" in shown
    assert "-9.70 EUR" in shown


def test_trial_balance_ends_with_sums_of_zero(books: LedgerByHand, run: Run) -> None:
    lines = _lines(run("trial-balance", "--tenant", TENANT, "--json"))
    assert lines[0] == {"account": "customer_balance:c1", "currency": "EUR", "type": "liability", "posted": -970}
    assert lines[-2:] == [{"currency": "EUR", "total": 0}, {"currency": "JPY", "total": 0}]


def test_an_empty_list_is_no_fault(books: LedgerByHand, run: Run) -> None:
    result = run("entries", "--tenant", TENANT, "--payment-id", "unknown", "--json")
    assert (result.exit_code, result.stdout) == (0, "")


def test_outcomes_are_listed(books: LedgerByHand, run: Run) -> None:
    (rejection,) = _lines(run("rejections", "list", "--tenant", TENANT, "--json"))
    (parked,) = _lines(run("parked", "list", "--tenant", TENANT, "--json"))
    (letter,) = _lines(run("dead-letters", "list", "--json"))
    assert rejection["code"] == "idempotency_conflict"
    assert parked["event"]["type"] == "refund.succeeded.v1"
    assert (letter["topic"], letter["code"]) == ("ledger.payments", "malformed")


def test_an_outcome_is_shown_by_the_id_of_the_list(books: LedgerByHand, run: Run) -> None:
    (rejection,) = _lines(run("rejections", "list", "--tenant", TENANT, "--json"))
    (parked,) = _lines(run("parked", "list", "--tenant", TENANT, "--json"))
    (refused,) = _lines(run("rejections", "show", rejection["id"], "--tenant", TENANT, "--json"))
    (waiting,) = _lines(run("parked", "show", parked["id"], "--tenant", TENANT, "--json"))
    assert refused["data"]["amount"] == 1_001
    assert waiting["data"]["refund_id"] == "r1"


def test_a_dead_letter_comes_back_byte_for_byte(books: LedgerByHand, run: Run) -> None:
    (letter,) = _lines(run("dead-letters", "list", "--json"))
    assert run("dead-letters", "show", letter["id"], "--raw").stdout_bytes == b"\xffnot json"
    (shown,) = _lines(run("dead-letters", "show", letter["id"], "--json"))
    assert shown["value_base64"] == "/25vdCBqc29u"


@pytest.mark.parametrize(
    "arguments",
    [
        ("balance", "--account", "customer_balance:c1"),
        ("statement", "--account", "customer_balance:c1"),
        ("trial-balance",),
        ("entries",),
        ("rejections", "list"),
        ("parked", "list"),
    ],
    ids=lambda arguments: arguments[0],
)
def test_what_people_see_fits_eighty_columns(books: LedgerByHand, run: Run, arguments: tuple[str, ...]) -> None:
    result = run(*arguments, "--tenant", TENANT)
    assert result.exit_code == 0
    assert result.stdout
    assert max(len(line) for line in result.stdout.splitlines()) <= 80


def test_figures_are_never_cut(books: LedgerByHand, run: Run) -> None:
    shown = run("balance", "--tenant", TENANT, "--account", "customer_balance:c1", COLUMNS="20").stdout
    assert "-9.70 EUR" in shown
    assert "…" not in shown


# --- proofs ---------------------------------------------------------------------------------------------------------


def test_verify_ends_0_where_all_holds(books: LedgerByHand, run: Run) -> None:
    checks = _lines(run("verify", "--deep", "--json"))
    assert {check["ok"] for check in checks} == {True}
    assert "checks hold" in run("verify", "--tenant", TENANT).stdout


@pytest.fixture
async def broken(books: LedgerByHand, settings: Settings) -> None:
    connection = await asyncpg.connect(settings.asyncpg_dsn)
    await connection.execute("UPDATE balances SET posted = posted + 1")
    await connection.close()


def test_verify_ends_1_and_names_what_does_not(broken: None, run: Run) -> None:
    result = run("verify", "--json")
    assert result.exit_code == 1
    checks = [json.loads(line) for line in result.stdout.splitlines()]
    assert [(check["check"], check["rows"]) for check in checks if not check["ok"]] == [("balances_folded", 5)]


# --- how it ends ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (("balance", "--tenant", TENANT, "--account", "nobody"), "tenant 'acme' has no account 'nobody'"),
        (("balance", "--tenant", "nobody", "--account", "x"), "no tenant 'nobody'"),
        (("entry", "00010000-0000-8000-8000-000000000000", "--tenant", TENANT), "has no entry"),
        (("rejections", "show", "0-99999", "--tenant", TENANT), "no rejection 0-99999"),
        (("dead-letters", "show", "0-99999"), "no dead letter 0-99999"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_nothing_by_that_name_ends_1_and_says_so_in_a_line(
    books: LedgerByHand, run: Run, arguments: tuple[str, ...], told: str
) -> None:
    result = run(*arguments)
    assert result.exit_code == 1
    assert told in result.stderr
    assert result.stderr.count("\n") == 1


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (("balance", "--tenant", TENANT, "--account", "x", "--at", "2026-01-01T00:00:00"), "of which zone"),
        (("balance", "--tenant", TENANT, "--account", "x", "--at", "yesterday"), "is not a time"),
        (("balance", "--tenant", TENANT, "--account", "x", "--in", "EUR"), "--in needs prices"),
        (("balance", "--account", "x"), "Missing option '--tenant'"),
        (("entry", "no-uuid", "--tenant", TENANT), "not a valid UUID"),
        (("rejections", "show", "7", "--tenant", TENANT), "is not an id of the list"),
        (("publish", "/nowhere/at/all"), "No such file"),
        (("balances",), "no command 'balances'"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_wrong_usage_ends_2(run: Run, arguments: tuple[str, ...], told: str) -> None:
    result = run(*arguments)
    assert result.exit_code == 2
    assert told in result.stderr


@pytest.mark.parametrize(
    ("changed", "told"),
    [
        ({"LEDGER_DATABASE_URL": "postgresql://127.0.0.1:1/ledger"}, "127.0.0.1:1/ledger can't be reached"),
        ({"LEDGER_DATABASE_URL": "mysql://127.0.0.1/ledger"}, "it must begin with postgresql://"),
        ({"LEDGER_SHARDS": "many"}, "LEDGER_SHARDS is 'many', which is not a number"),
        ({"LEDGER_SHARD": "1"}, "LEDGER_SHARD is not a setting of ledgerstream; did you mean LEDGER_SHARDS?"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_what_the_operator_must_mend_ends_2_with_one_line(run: Run, changed: dict[str, str], told: str) -> None:
    result = run("trial-balance", "--tenant", TENANT, **changed)
    assert result.exit_code == 2
    assert told in result.stderr
    assert result.stderr.count("\n") == 1


def test_a_database_without_a_ledger_ends_2_and_says_how_to_make_one(run: Run, empty_database_url: str) -> None:
    result = run("trial-balance", "--tenant", TENANT, LEDGER_DATABASE_URL=empty_database_url)
    assert result.exit_code == 2
    assert "run `ledgerstream migrate`" in result.stderr


def test_a_missing_database_ends_2(run: Run, settings: Settings) -> None:
    url = settings.asyncpg_dsn.rpartition("/")[0] + "/nothing_here"
    result = run("trial-balance", "--tenant", TENANT, LEDGER_DATABASE_URL=url)
    assert result.exit_code == 2
    assert 'database "nothing_here" does not exist' in result.stderr
    assert settings.asyncpg_dsn.partition("@")[0].rpartition(":")[2] not in result.stderr


def test_the_database_s_address_may_have_parameters(run: Run, empty_database_url: str) -> None:
    url = f"{empty_database_url}?sslmode=disable&application_name=mine"
    assert run("migrate", LEDGER_DATABASE_URL=url).exit_code == 0
    assert run("verify", LEDGER_DATABASE_URL=url).exit_code == 0


def test_kafka_away_ends_lag_2(run: Run) -> None:
    result = run("lag", LEDGER_KAFKA_BOOTSTRAP="127.0.0.1:1")
    assert result.exit_code == 2
    assert "Kafka at 127.0.0.1:1 can't be asked" in result.stderr


def test_without_servers_in_the_environment_a_stack_that_is_up_is_read(stack: RunningStack, tmp_path: Path) -> None:
    """Its own database is empty, so the answer names it."""
    if stack.data is None:
        pytest.skip("the servers of this run are named in the environment; there is no stack of ours to find")
    (tmp_path / "ledgerstream").symlink_to(stack.data)
    environment = {name: None for name in os.environ if name.startswith("LEDGER_")}
    result = CliRunner().invoke(
        cli, ["trial-balance", "--tenant", TENANT], env={**environment, "XDG_DATA_HOME": str(tmp_path)}
    )
    assert result.exit_code in (1, 2)
    assert "LEDGER_DATABASE_URL is not set" not in result.stderr


def test_without_any_servers_the_way_out_is_told(tmp_path: Path) -> None:
    environment = {name: None for name in os.environ if name.startswith("LEDGER_")}
    result = CliRunner().invoke(
        cli, ["trial-balance", "--tenant", TENANT], env={**environment, "XDG_DATA_HOME": str(tmp_path)}
    )
    assert result.exit_code == 2
    assert 'run "ledgerstream stack up"' in result.stderr


def test_migrating_twice_is_harmless(run: Run, empty_database_url: str) -> None:
    for _ in range(2):
        result = run("migrate", LEDGER_DATABASE_URL=empty_database_url)
        assert result.exit_code == 0, result.stderr
    assert run("verify", LEDGER_DATABASE_URL=empty_database_url).exit_code == 0


# --- help -----------------------------------------------------------------------------------------------------------


def test_help_loads_none_of_the_commands() -> None:
    program = (
        "import sys; from click.testing import CliRunner; from consumers.cli import cli;"
        " assert 'trial-balance' in CliRunner().invoke(cli, ['--help']).stdout;"
        " print([name for name in ('sqlalchemy', 'aiokafka', 'pydantic', 'rich', 'asyncio') if name in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_completion_is_printed_for(shell: str) -> None:
    result = CliRunner().invoke(cli, ["completion", shell])
    assert result.exit_code == 0
    assert "_LEDGERSTREAM_COMPLETE" in result.stdout


def test_completion_knows_the_commands() -> None:
    environment = {"_LEDGERSTREAM_COMPLETE": "bash_complete", "COMP_WORDS": "ledgerstream trial", "COMP_CWORD": "1"}
    result = CliRunner().invoke(
        cli, [], prog_name="ledgerstream", env=environment, complete_var="_LEDGERSTREAM_COMPLETE"
    )
    assert result.stdout.strip() == "plain,trial-balance"


@pytest.mark.parametrize("name", sorted(COMMANDS))
def test_every_command_has_help(name: str) -> None:
    result = CliRunner().invoke(cli, [name, "--help"])
    assert result.exit_code == 0, result.output
    assert result.stdout.startswith("Usage: ")


def test_moments_of_the_books_are_told_in_utc(books: LedgerByHand, run: Run) -> None:
    (line,) = _lines(run("entries", "--tenant", TENANT, "--payment-id", "p1", "--json"))
    assert line["recorded_at"] == NOON.strftime("%Y-%m-%dT%H:%M:%S.000000Z")
