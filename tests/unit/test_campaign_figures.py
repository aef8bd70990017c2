"""What a campaign says of its speed."""

from __future__ import annotations

from tests.campaign.figures import MUCH, Figures, Look, Phase


def look(at: float, records: int, phase: Phase, *, behind: int = MUCH) -> Look:
    return Look(at, 10.0, records, 3 * records, behind, phase)


def test_what_is_kept_is_the_speed_under_faults_as_a_part_of_that_without() -> None:
    looks = [look(0, 9, "before"), look(10, 4_000, "before"), look(70, 1_000, "faults"), look(80, 3_000, "faults")]
    figures = Figures(looks=[*looks, look(90, 2_000, "after")])
    assert (figures.without_faults, figures.with_faults) == (300, 200)
    assert round(figures.kept, 3) == 0.667
    assert figures.by_minute() == [(0, 200.45), (1, 200)]


def test_where_the_ledger_keeps_up_the_publisher_sets_the_pace() -> None:
    keeping_up = [look(10, 300, "faults", behind=5), look(20, 300, "faults", behind=5)]
    falling_behind, catching_up = look(30, 0, "faults", behind=3_000), look(40, 6_000, "faults", behind=0)
    figures = Figures(looks=[*keeping_up, falling_behind, catching_up])
    assert figures.with_faults == 300
    assert figures.all_the_time == 165
    assert Figures().kept == 0


def test_what_programs_are_told_has_each_kind_of_fault_and_all_of_them() -> None:
    figures = Figures(looks=[look(0, 10, "before")], published=7)
    figures.faults.update(["kill", "kill", "clock"])
    told = figures.as_json()
    assert (told["faults"], told["faults_total"], told["published"]) == ({"clock": 1, "kill": 2}, 3, 7)
    assert told["records_per_second"]["by_minute"] == [[0, 1]]
