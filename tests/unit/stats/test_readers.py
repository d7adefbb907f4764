"""Changes of readers are counted over the line of a biopsy, and against the truth."""

import pandas as pd

from busi_pipeline.stats.readers import count_changes

COLUMNS = ["reader", "first", "final", "flagged", "is_positive"]
VERSION = "v1"


def count(*rows: tuple[str, str, str | None, bool, bool | None]) -> pd.DataFrame:
    table = pd.DataFrame(list(rows), columns=COLUMNS).assign(model_version=VERSION)
    return count_changes(table).set_index("reader")


def test_changes_are_right_or_wrong_where_the_truth_is_known() -> None:
    row = count(
        ("a", "3", "4A", True, True),  # rightly
        ("a", "4B", "2", False, True),  # wrongly
        ("a", "2", "5", True, None),  # not known
        ("a", "4A", "4C", True, True),  # no change over the line
        ("a", "2", "2", False, False),
    ).loc["a"]
    assert (row["images"], row["changed"]) == (5, 4)
    assert (row["to_suspicious"], row["to_not_suspicious"]) == (2, 1)
    assert (row["rightly"], row["wrongly"], row["truth_unknown"]) == (1, 1, 1)
    assert row["agreed"] == 2
    assert row[["positives", "positives_first", "positives_final"]].tolist() == [3, 2, 2]
    assert row[["negatives", "negatives_first", "negatives_final"]].tolist() == [1, 1, 1]


def test_an_incomplete_read_is_on_neither_side() -> None:
    row = count(("a", "0", "4A", True, True), ("a", "4A", "0", True, True)).loc["a"]
    assert (row["images"], row["changed"], row["incomplete"]) == (2, 2, 2)
    assert row["agreed"] == 1, "the second one did at first"
    assert row[["to_suspicious", "to_not_suspicious", "rightly", "wrongly"]].sum() == 0
    assert row["positives"] == 0


def test_what_was_not_decided_is_counted_apart() -> None:
    row = count(("a", "2", None, True, True), ("a", "4A", "4A", True, True)).loc["a"]
    assert (row["images"], row["undecided"], row["positives"]) == (1, 1, 1)


def test_versions_of_the_model_are_kept_apart() -> None:
    table = pd.DataFrame([("a", "2", "2", True, None)] * 3, columns=COLUMNS)
    counted = count_changes(table.assign(model_version=["v1", "v2", "v2"]))
    assert dict(zip(counted["model_version"], counted["images"], strict=True)) == {"v1": 1, "v2": 2}


def test_a_reader_is_one_in_any_letters() -> None:
    table = count(("Ada", "2", "2", False, None), ("ADA", "3", "4A", True, None))
    assert table["images"].to_dict() == {"Ada": 2}


def test_without_reads_the_table_is_empty() -> None:
    assert list(count().columns)[:2] == ["model_version", "images"]
    assert count().empty
