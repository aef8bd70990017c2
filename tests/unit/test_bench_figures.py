"""The figures of the benchmark: what is said of a run is what was measured."""

from __future__ import annotations

from consumers.bench_decisions import _Asked, figures


def test_figures_are_milliseconds_of_the_parts_of_a_hundred() -> None:
    asked = [
        _Asked(sent=0.0, acknowledged=0.001, decided=number / 2_000, read=number / 1_000) for number in range(1, 201)
    ]
    assert figures("200/s", asked) == {
        "what": "200/s",
        "requests": 200,
        "p50": 101.0,
        "p90": 181.0,
        "p99": 199.0,
        "max": 200.0,
        "to_kafka": 1.0,
        "to_decision": 50.5,
        "to_subscriber": 50.5,
    }
