"""Who claims which keys: each event changes the books once, however it is delivered."""

from __future__ import annotations

import pytest

from infra.postgres.save import TenantMovedError
from infra.settings import Settings
from tests.coherence import assert_coherent
from tests.fixtures.desk import Desk, Envelope, again, desk_on, envelope, event_of, payment, post, refund

PAID = {"platform:cash": 1_000, "customer_balance:c1": -1_000}


async def coherent(desk: Desk) -> None:
    async with desk.pool.acquire() as connection:
        await assert_coherent(connection)


def create(name: str = "wallet", **more: object) -> Envelope:
    return envelope("account.create.v1", **({"name": name, "type": "asset"} | more))


# --- the same again -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("first", "second"),
    [
        (payment(id="e1"), payment(id="e1")),
        (payment(id="e1"), payment(id="e2")),
        (payment(id="e1", source="a"), payment(id="e1", source="b")),
        (payment(id="e1", key="k"), payment(id="e2", key="k")),
        (payment(id="e1", description="a"), payment(id="e1", description="b", metadata={"n": 1})),
        (payment(id="e1", fees=0), payment(id="e2", cash_account="platform:cash")),
    ],
)
@pytest.mark.parametrize("together", [True, False])
async def test_the_same_payment_again_changes_and_says_nothing(
    desk: Desk, first: Envelope, second: Envelope, together: bool
) -> None:
    if together:
        result = await desk.apply(first, second)
    else:
        await desk.apply(first)
        before = await desk.outputs()
        result = await desk.apply(second)
        assert await desk.outputs() == before
    assert result.duplicates == 1
    assert await desk.balances() == PAID
    assert len(await desk.entries()) == 1
    await coherent(desk)


async def test_a_request_with_a_known_key_is_a_duplicate_under_any_id(desk: Desk) -> None:
    await desk.apply(create("a"), create("b"))
    legs = (("a", 5), ("b", -5))
    await desk.apply(post(*legs, key="k", id="e1"))
    assert (await desk.apply(post(*legs, key="k", id="e2"))).duplicates == 1
    assert await desk.balances() == {"a": 5, "b": -5}


async def test_keys_of_one_tenant_are_not_anothers(desk: Desk) -> None:
    await desk.apply(payment(id="e1", key="k"), payment(id="e1", key="k", tenant="other"))
    assert await desk.balances() == await desk.balances("other") == PAID


async def test_a_publishers_key_is_in_a_space_of_its_own(desk: Desk) -> None:
    await desk.apply(payment("p1", id="p2", key="p3"), payment("p2", id="p3", key="p1"))
    assert len(await desk.entries()) == 2


async def test_two_providers_may_have_a_payment_of_one_name(desk: Desk) -> None:
    await desk.apply(payment(), payment(provider="x"), payment(provider="y"), payment(capture_id="2"))
    assert (await desk.balances())["platform:cash"] == 4_000


# --- another thing under a known key ---------------------------------------------------------------------------------


@pytest.mark.parametrize("together", [True, False])
@pytest.mark.parametrize(
    ("second", "differs"),
    [
        (payment(id="e1", amount=7), ["amount"]),
        (payment(id="e2", amount=7, customer_id="c2"), ["amount", "customer_id"]),
        (payment("p2", id="e2", key="k"), ["payment_id"]),
        (refund(id="e2", key="k"), ["amount", "payment_id", "refund_id", "type"]),
    ],
)
async def test_a_known_key_with_other_data_is_told_once_and_the_first_stands(
    desk: Desk, second: Envelope, differs: list[str], together: bool
) -> None:
    first = payment(id="e1", key="k")
    for batch in [[first, second]] if together else [[first], [second]]:
        await desk.apply(*batch)
    assert (await desk.apply(second)).duplicates == 1
    rejected = [output["data"] for output in await desk.outputs() if output["type"] == "event.rejected.v1"]
    assert [(data["code"], data["differs"]) for data in rejected] == [("idempotency_conflict", differs)]
    assert await desk.balances() == PAID
    await coherent(desk)


async def test_a_conflict_claims_only_its_delivery(desk: Desk) -> None:
    await desk.apply(payment(id="e1"), payment(id="e2", amount=7, key="k"))
    await desk.apply(payment("p2", id="e3", key="k"))
    assert len(await desk.entries()) == 2


async def test_a_conflict_is_told_again_under_another_id(desk: Desk) -> None:
    wrong = payment(id="e2", amount=7)
    await desk.apply(payment(id="e1"), wrong, again(wrong), again(wrong))
    assert await desk.codes() == ["idempotency_conflict"] * 3


async def test_a_known_delivery_with_a_third_body_is_told_again(desk: Desk) -> None:
    await desk.apply(payment(id="e1"))
    for amount in (7, 8, 7, 8):
        await desk.apply(payment(id="e1", amount=amount))
    assert await desk.codes() == ["idempotency_conflict"] * 2


# --- refusals -------------------------------------------------------------------------------------------------------


async def test_a_refused_request_keeps_its_keys_for_ever(desk: Desk) -> None:
    asked = post(("a", 5), ("b", -5), key="k", id="e1")
    await desk.apply(asked)
    await desk.apply(create("a"), create("b"))
    assert (await desk.apply(asked, again(asked))).duplicates == 2
    await desk.apply(again(asked, description="same"), post(("a", 6), ("b", -6), key="k"))
    assert await desk.codes() == ["account_not_found", "applied", "applied", "idempotency_conflict"]
    assert await desk.balances() == {}


async def test_a_refused_fact_is_judged_again_under_another_id_and_not_under_its_own(desk: Desk) -> None:
    await desk.apply(payment())
    wrong = refund(payment_id="p1", amount=1_500, id="e1", key="k")
    await desk.apply(wrong)
    await desk.apply(payment(capture_id="2"))
    assert (await desk.apply(wrong)).duplicates == 1
    assert (await desk.apply(again(wrong))).applied == 1
    assert (await desk.apply(again(wrong), wrong)).duplicates == 2
    assert (await desk.balances())["platform:cash"] == 500
    await coherent(desk)


async def test_a_refused_create_claims_its_key_and_not_its_id(desk: Desk) -> None:
    await desk.apply(create(parent="none", key="k1", id="e1"))
    await desk.apply(create("parent"), create(parent="none", key="k2", id="e2"))
    assert (await desk.apply(create(parent="none", key="k1"))).duplicates == 1
    await desk.apply(create(key="k3"))
    assert await desk.codes() == ["account_not_found", "applied", "account_not_found", "applied"]


async def test_a_create_of_a_known_id_with_other_data_says_that_it_exists(desk: Desk) -> None:
    await desk.apply(create(id="e1"))
    await desk.apply(create(id="e2", type="liability"), create(id="e3"))
    assert await desk.codes() == ["applied", "account_exists"]


@pytest.mark.parametrize("together", [True, False])
async def test_a_create_changed_and_sent_again_with_its_key_says_that_it_exists(desk: Desk, together: bool) -> None:
    first, changed = create(key="k", id="e1"), create(key="k", id="e2", type="liability")
    for batch in [[first, changed]] if together else [[first], [changed]]:
        await desk.apply(*batch)
    assert (await desk.apply(changed)).duplicates == 1
    assert await desk.codes() == ["applied", "account_exists"]
    await coherent(desk)


@pytest.mark.parametrize("together", [True, False])
async def test_a_refused_create_sent_again_with_its_key_is_known(desk: Desk, together: bool) -> None:
    first, taken = create(id="e1"), create(key="k", id="e2", type="liability")
    for batch in [[first, taken, again(taken)]] if together else [[first], [taken], [again(taken)]]:
        result = await desk.apply(*batch)
    assert result.duplicates == 1
    assert await desk.codes() == ["applied", "account_exists"]
    await coherent(desk)


async def test_an_account_that_a_fact_made_exists_for_a_create(desk: Desk) -> None:
    await desk.apply(payment())
    await desk.apply(create("platform:cash"), create("platform:cash"))
    assert await desk.codes() == ["account_exists"] * 2


# --- reversals ------------------------------------------------------------------------------------------------------


async def test_an_entry_is_reversed_once_however_its_id_is_spelled(desk: Desk) -> None:
    await desk.apply(create("a"), create("b"))
    await desk.apply(post(("a", 5), ("b", -5)))
    entry_id = (await desk.entries())[0]["entry_id"]
    spellings = [entry_id, entry_id.upper(), entry_id.replace("-", ""), f"{{{entry_id}}}", f"urn:uuid:{entry_id}"]
    for spelling in spellings:
        await desk.apply(envelope("entry.reverse.v1", entry_id=spelling))
    assert await desk.balances() == {}
    assert len(await desk.entries()) == 2
    await coherent(desk)


async def test_only_what_was_posted_on_request_can_be_reversed_and_by_its_tenant(desk: Desk) -> None:
    await desk.apply(payment())
    await desk.apply(create("a"), create("b"), post(("a", 5), ("b", -5)))
    paid, posted = (entry["entry_id"] for entry in await desk.entries())
    account = next(output for output in await desk.outputs() if output["type"] == "balance.changed.v1")["data"]
    for entry_id in (paid, account["account_id"], "no uuid", "00000000-0000-0000-0000-000000000000"):
        await desk.apply(envelope("entry.reverse.v1", entry_id=entry_id))
    await desk.apply(envelope("entry.reverse.v1", entry_id=posted, tenant="other"))
    found = [code for code in await desk.codes() if code != "applied"]
    assert found == ["entry_not_reversible", "entry_not_found", "entry_not_found", "entry_not_found"]
    assert await desk.codes("other") == ["entry_not_found"]


# --- tenants --------------------------------------------------------------------------------------------------------


async def test_a_tenant_is_made_by_its_first_event_and_then_exists(desk: Desk) -> None:
    await desk.apply(payment())
    await desk.apply(envelope("tenant.create.v1", key="k"))
    assert await desk.codes() == ["tenant_exists"]


async def test_a_tenant_lives_on_the_shard_it_asked_for(desk: Desk) -> None:
    hashed = await desk.shard("giant")
    wanted = (hashed + 1) % 4
    await desk.apply(envelope("tenant.create.v1", tenant="giant", shard=wanted))
    await desk.apply(payment(tenant="giant"))
    assert {output["id"].split("-")[1] for output in await desk.outputs("giant")} == {str(wanted)}
    assert await desk.shard("giant") == wanted
    await coherent(desk)


async def test_a_tenant_that_asks_for_a_shard_that_is_not_there_is_told_so(desk: Desk) -> None:
    await desk.apply(envelope("tenant.create.v1", tenant="giant", shard=4, key="k1"))
    assert await desk.codes("giant") == ["tenant_not_found"]
    await desk.apply(envelope("tenant.create.v1", tenant="giant", shard=3, key="k2"))
    assert await desk.codes("giant") == ["tenant_not_found", "applied"]
    await coherent(desk)


async def test_where_tenants_are_registered_others_have_no_events(ledger_settings: Settings) -> None:
    async with desk_on(ledger_settings, registered_only=True) as desk:
        await desk.apply(payment(id="e1"), post(("a", 1), ("b", -1), key="k", id="e2"))
        await desk.apply(post(("a", 2), ("b", -2), key="k", id="e3"), payment(id="e4"))
        assert await desk.pool.fetchval("SELECT count(*) FROM tenants") == 0
        assert await desk.codes() == [
            "tenant_not_found",
            "tenant_not_found",
            "idempotency_conflict",
            "tenant_not_found",
        ]
        await desk.apply(envelope("tenant.create.v1", key="t"), payment(id="e5"))
        assert await desk.balances() == PAID
        assert (await desk.apply(payment(id="e1"))).duplicates == 1
        await coherent(desk)


async def test_a_tenant_that_was_made_on_another_shard_meanwhile_moves_there(ledger_settings: Settings) -> None:
    async with desk_on(ledger_settings) as one, desk_on(ledger_settings) as two:
        shard = await one.shard()
        await one.ledger.apply([event_of(payment())], shard=shard)
        with pytest.raises(TenantMovedError):
            await two.ledger.apply([event_of(payment("p2"))], shard=(shard + 1) % 4)
        assert await two.shard() == shard
        await coherent(one)
