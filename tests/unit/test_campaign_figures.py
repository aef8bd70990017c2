"""What a campaign says of its speed."""

from __future__ import annotations

from tests.campaign.figures import MUCH, Figures, Look, Phase


def look(at: float, records: int, phase: Phase, *, behind: int = MUCH) -> Look:
    return Look(at, 10.0, records, 3 * records, behind, phase)


def test_what_is_kept_is_a_part_of_what_would_have_been_read_without_faults() -> None:
    before = [look(0, 9, "before", behind=8_000), look(10, 4_000, "before", behind=4_000)]
    # 4,000 were published in each of the two, faster than the ledger is without faults.
    faults = [look(70, 1_000, "faults", behind=7_000), look(80, 3_000, "faults", behind=8_000)]
    figures = Figures(looks=[*before, *faults, look(90, 2_000, "after", behind=0)])
    assert (figures.without_faults, figures.with_faults, figures.offered) == (300, 200, 400)
    assert round(figures.kept, 3) == 0.667
    assert figures.behind_most == 8_000
    assert figures.by_minute() == [(0, 200.45), (1, 200)]


def test_where_little_is_published_all_of_it_is_what_can_be_kept() -> None:
    before = [look(0, 9, "before"), look(10, 4_000, "before", behind=0)]
    figures = Figures(looks=[*before, look(20, 0, "faults", behind=3_000), look(30, 6_000, "faults", behind=0)])
    assert (figures.offered, figures.with_faults, figures.kept) == (300, 300, 1)
    assert Figures().kept == 0


def test_where_there_was_never_much_to_read_no_speed_is_claimed() -> None:
    figures = Figures(looks=[look(0, 10, "before", behind=0), look(10, 500, "faults", behind=0)])
    assert figures.told()[-1].startswith("throughput: without faults there was never much to read; with them 50 ")
    assert figures.as_json()["records_per_second"]["without_faults"] is None


def test_what_programs_are_told_has_each_kind_of_fault_and_all_of_them() -> None:
    figures = Figures(looks=[look(0, 10, "before")], published=7)
    figures.faults.update(["kill", "kill", "clock"])
    told = figures.as_json()
    assert (told["faults"], told["faults_total"], told["published"]) == ({"clock": 1, "kill": 2}, 3, 7)
    assert told["records_per_second"]["by_minute"] == [[0, 1]]
