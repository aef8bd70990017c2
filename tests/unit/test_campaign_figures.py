"""What a campaign says of its speed."""

from __future__ import annotations

from tests.campaign.figures import Figures, Look, Phase


def look(at: float, records: int, phase: Phase, *, behind: int = 1) -> Look:
    return Look(at, 10.0, records, 3 * records, behind, phase)


def test_what_is_kept_is_the_speed_under_faults_as_a_part_of_that_without() -> None:
    looks = [look(0, 4_000, "before"), look(70, 1_000, "faults"), look(80, 3_000, "faults"), look(90, 2_000, "after")]
    figures = Figures(looks=looks)
    assert (figures.without_faults, figures.with_faults) == (300, 200)
    assert round(figures.kept, 3) == 0.667
    assert figures.by_minute() == [(0, 400), (1, 200)]


def test_a_time_in_which_there_was_nothing_to_read_says_nothing_about_the_speed() -> None:
    figures = Figures(looks=[look(0, 4_000, "before"), look(10, 0, "before", behind=0), look(20, 0, "faults")])
    assert figures.without_faults == 400
    assert figures.with_faults == 0


def test_what_programs_are_told_has_each_kind_of_fault_and_all_of_them() -> None:
    figures = Figures(looks=[look(0, 10, "before")], published=7)
    figures.faults.update(["kill", "kill", "clock"])
    told = figures.as_json()
    assert (told["faults"], told["faults_total"], told["published"]) == ({"clock": 1, "kill": 2}, 3, 7)
    assert told["records_per_second"]["by_minute"] == [[0, 1]]
