"""Tables of parameters and of run times."""

import dataclasses

from gradleak.book.pages import duration, runs_page, table
from gradleak.book.record import Run


def test_durations_and_tables():
    assert [duration(s) for s in (0.2, 24, 370, 7500)] == ["1 s", "24 s", "6 min 10 s", "2 h 5 min"]
    assert table([("a",), ("x|y",)]) == "| a |\n| --- |\n| x\\|y |\n"


def test_a_run_that_found_its_records_says_how_long_they_took():
    ran = Run(
        "01_toy", "quick", "cpu", {}, "", 55.0, "2026-01-01", "abacus", "3", "2", records=782.0
    )
    page = runs_page([ran], [dataclasses.replace(ran, records=None)])
    here, published = (line for line in page.splitlines() if "01_toy" in line)
    assert "| 55 s | 13 min 2 s | 2026-01-01 | defaults |" in here
    assert "| 55 s |  | 2026-01-01 | defaults |" in published
