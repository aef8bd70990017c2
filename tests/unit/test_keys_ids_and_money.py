"""Keys that can't collide, ids that tell where they were made, units with their true exponents."""

from __future__ import annotations

from itertools import combinations
from uuid import UUID

import pytest
from hypothesis import given
from hypothesis import strategies as st

from domain.ids import account_id, entry_id, place_of
from domain.keys import conflict_key, dead_letter_key, delivery_key, natural_key, publisher_key
from domain.money import EXPONENTS, exponent, in_major_units

text = st.text(max_size=4, alphabet="a:\x00é")
maybe = st.one_of(st.none(), text)


@given(st.tuples(text, text, st.lists(maybe, max_size=3)), st.tuples(text, text, st.lists(maybe, max_size=3)))
def test_two_natural_keys_are_equal_only_if_all_their_parts_are(
    one: tuple[str, str, list[str | None]], two: tuple[str, str, list[str | None]]
) -> None:
    # Kinds are ours and have no U+0000 in them.
    one, two = ((tenant, kind.replace("\x00", ""), parts) for tenant, kind, parts in (one, two))
    assert (natural_key(one[0], one[1], *one[2]) == natural_key(two[0], two[1], *two[2])) == (one == two)


def test_no_space_of_keys_meets_another() -> None:
    topic = UUID(int=1).bytes
    keys = [
        natural_key("t", "payment", "a"),
        natural_key("t", "payment", "a", None),
        natural_key("t", "payment", None, "a"),
        natural_key("t", "payment", "", "a"),
        natural_key("t", "payment", "a", ""),
        natural_key("t", "", "payment", "a"),
        publisher_key("t", "a"),
        publisher_key("ta", ""),
        delivery_key("t", "a", "b"),
        delivery_key("t", "", "ab"),
        delivery_key("t", "ab", ""),
        conflict_key("t", "a", "b", 1),
        conflict_key("t", "a", "b", -1),
        dead_letter_key(topic, 0, 1),
        dead_letter_key(topic, 1, 0),
    ]
    assert all(one != two for one, two in combinations(keys, 2))
    assert {len(key) for key in keys} == {16}


def test_the_longest_ids_have_keys() -> None:
    assert natural_key("t" * 64, "payment", "\U0010ffff" * 200, "\U0010ffff" * 200) != natural_key("t", "payment")


@given(st.integers(1, 2**16 - 1), st.integers(0, 2**16 - 1), st.integers(1, 2**56 - 1), st.integers(1, 2**34 - 1))
def test_an_id_tells_where_it_was_made(epoch: int, shard: int, seq: int, ordinal: int) -> None:
    made = account_id(epoch, shard, seq, ordinal)
    assert place_of(made) == place_of(entry_id(epoch, shard, seq)) == (epoch, shard, seq)
    assert (made.version, made.variant) == (8, "specified in RFC 4122")
    assert made != entry_id(epoch, shard, seq)


@pytest.mark.parametrize("bit", range(56))
def test_no_bit_of_a_seq_runs_into_the_rest_of_its_id(bit: int) -> None:
    made = entry_id(1, 2, 1 << bit)
    assert (made.version, made.variant) == (8, "specified in RFC 4122")
    assert place_of(made) == (1, 2, 1 << bit)


@given(st.integers(1, 2**56 - 2))
def test_ids_are_in_the_order_of_their_making(seq: int) -> None:
    assert entry_id(1, 3, seq) < account_id(1, 3, seq, 1) < account_id(1, 3, seq, 2) < entry_id(1, 3, seq + 1)
    assert entry_id(1, 3, seq + 1) < entry_id(2, 3, 1)


@given(st.uuids())
def test_any_other_uuid_has_a_place_that_fits_the_database(uuid: UUID) -> None:
    epoch, shard, seq = place_of(uuid)
    assert 0 <= epoch < 2**16
    assert 0 <= shard < 2**16
    assert 0 <= seq < 2**56


@pytest.mark.parametrize(
    ("code", "decimals"),
    [
        *((code, 2) for code in ("EUR", "USD", "GBP", "CHF", "CZK", "INR", "HUF", "MGA", "MRU", "ZWG", "XCG", "SLE")),
        *((code, 0) for code in ("JPY", "KRW", "CLP", "ISK", "VND", "XOF", "XAF", "XPF", "UGX", "PYG", "UYI")),
        *((code, 3) for code in ("KWD", "BHD", "OMR", "JOD", "TND", "IQD", "LYD")),
        *((code, 4) for code in ("CLF", "UYW")),
        *((code, 8) for code in ("BTC", "ETH")),
        *((code, 6) for code in ("USDC", "USDT")),
    ],
)
def test_a_unit_has_its_true_exponent(code: str, decimals: int) -> None:
    assert exponent(code) == decimals


def test_no_unit_is_there_that_has_gone_or_never_was() -> None:
    # Withdrawn currencies, metals, test codes, another case.
    gone = ("DEM", "HRK", "BGN ", "ZWL", "ANG", "SLL", "MRO", "XXX", "XTS", "XAU", "eur", "", "*", "EURO")
    assert [code for code in gone if code in EXPONENTS] == []
    assert max(EXPONENTS.values()) == 8


@pytest.mark.parametrize(
    ("amount", "code", "shown"),
    [
        (1234, "EUR", "12.34 EUR"),
        (-5, "EUR", "-0.05 EUR"),
        (500, "JPY", "500 JPY"),
        (1_234_567, "KWD", "1,234.567 KWD"),
        (-(2**63) + 1, "EUR", "-92,233,720,368,547,758.07 EUR"),
    ],
)
def test_amounts_are_shown_as_people_read_them(amount: int, code: str, shown: str) -> None:
    assert in_major_units(amount, code) == shown
