"""Counts of what filters dropped: exact from many threads, through JSON, over processes."""

import json
from concurrent.futures import ThreadPoolExecutor

from flax_distil.core.nested import build
from flax_distil.data.preprocessing.config import FilterConfig
from flax_distil.data.preprocessing.drop_report import DropReport
from flax_distil.data.preprocessing.filter_tables import filter_rows
from flax_distil.data.preprocessing.filters import RowFilter
from flax_distil.text.normalizers import get_normalizer


def counted() -> DropReport:
    report = DropReport()
    report.add("news", None, 1800.0)
    report.add("news", "too short", 0.5)
    report.add("news", "above the WER threshold", 7.0)
    report.add("news", "above the WER threshold", None)
    report.add("talks", None, 3600.0)
    return report


def test_the_table_shows_rows_and_hours_by_data_set_and_reason():
    assert counted().table().splitlines() == [
        "                                  rows      hours",
        "news                                 4       0.50",
        "  kept                               1       0.50",
        "  above the WER threshold            2       0.00",
        "  too short                          1       0.00",
        "talks                                1       1.00",
        "  kept                               1       1.00",
    ]
    assert DropReport().table() == ""


def test_the_state_goes_through_json_and_parts_add_up():
    state = json.loads(json.dumps(counted().get_state()))
    assert state["news"]["above the WER threshold"] == {"rows": 2, "seconds": 7.0}
    assert DropReport.merge([state]).table() == counted().table()
    twice = DropReport.merge([state, state])
    twice.add("talks", None, 1.0)
    assert twice.get_state()["news"]["kept"] == {"rows": 2, "seconds": 3600.0}
    assert twice.get_state()["talks"]["kept"] == {"rows": 3, "seconds": 7201.0}


def test_many_threads_lose_no_row():
    report = DropReport()
    with ThreadPoolExecutor(8) as threads:
        list(threads.map(lambda number: report.add("a", ("x", None)[number % 2], 0.5), range(4000)))
    assert report.get_state() == {
        "a": {"x": {"rows": 2000, "seconds": 1000.0}, "kept": {"rows": 2000, "seconds": 1000.0}}
    }


def test_filters_count_every_row_of_real_prompts(train):
    report = DropReport()
    row_filter = RowFilter(
        train, build(FilterConfig, min_duration_in_seconds=1.0), normalize=get_normalizer("en")
    )
    result = filter_rows(train, row_filter, report=report)
    durations = train.durations()
    short = [seconds for seconds in durations if seconds <= 1.0]
    counts = report.get_state()[train.name]
    assert counts["too short"]["rows"] == len(short) == result.dropped["too short"] > 0
    assert counts["kept"]["rows"] == len(result.kept) == 369 - len(short)
    assert abs(counts["kept"]["seconds"] - (sum(durations) - sum(short))) < 1e-6
