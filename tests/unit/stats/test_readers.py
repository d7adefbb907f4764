"""Changes of readers are counted over the line of a biopsy, and against the truth."""

import numpy as np
import pandas as pd

from busi_pipeline.stats.readers import count_changes

COLUMNS = ["reader", "first", "final", "flagged", "is_positive"]


def count(*rows: tuple[str, str, str, bool, bool | None]) -> pd.DataFrame:
    return count_changes(pd.DataFrame(list(rows), columns=COLUMNS)).set_index("reader")


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
    assert (row["sensitivity_first"], row["sensitivity_final"]) == (2 / 3, 2 / 3)
    assert (row["specificity_first"], row["specificity_final"]) == (1, 1)


def test_an_incomplete_read_is_on_neither_side() -> None:
    row = count(("a", "0", "4A", True, True), ("a", "4A", "0", True, True)).loc["a"]
    assert (row["images"], row["changed"], row["agreed"]) == (2, 2, 0)
    assert row[["to_suspicious", "to_not_suspicious", "rightly", "wrongly"]].sum() == 0
    assert np.isnan(row["sensitivity_first"])


def test_a_reader_is_one_in_any_letters() -> None:
    table = count(("Ada", "2", "2", False, None), ("ADA", "3", "4A", True, None))
    assert table["images"].to_dict() == {"Ada": 2}


def test_without_reads_the_table_is_empty() -> None:
    assert list(count().columns)[:2] == ["images", "agreed"]
    assert count().empty
