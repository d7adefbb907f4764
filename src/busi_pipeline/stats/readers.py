"""What readers said before and after they saw a model's answer."""

from collections.abc import Mapping
from typing import Any, Final

import numpy as np
import pandas as pd

CATEGORIES: Final = ("0", "1", "2", "3", "4A", "4B", "4C", "5")
"""Of BI-RADS (American College of Radiology, 5th edition); 6 is for a cancer that is known."""

SUSPICIOUS: Final = ("4A", "4B", "4C", "5")
"""Those for which a biopsy is advised."""

INCOMPLETE: Final = "0"
"""Further imaging is needed: neither suspicious nor not."""


def count_changes(reads: pd.DataFrame) -> pd.DataFrame:
    """Return a row a reader, by name.

    Args:
        reads: a row an image that a reader read before and after: `reader`; `first` and `final`,
            of CATEGORIES; `flagged`, by the model; `is_positive`, the truth, missing where it is
            not known.

    `images`; `agreed`: whose first category is suspicious where the model flags, and not where it
    does not; `changed`: another category; `to_suspicious`, `to_not_suspicious`: over the line of a
    biopsy; of these `rightly`, `wrongly` and `truth_unknown`; `sensitivity_first`,
    `sensitivity_final`, `specificity_first`, `specificity_final`: over the images whose truth is
    known, category 0 left out on both sides where one of them is 0; nan where there are none.
    """
    named = reads.assign(key=reads["reader"].str.casefold())
    rows = [_count_reader(own) for _, own in named.groupby("key")]
    return pd.DataFrame(rows, columns=list(_count_reader(named.iloc[:0])))


def _count_reader(reads: pd.DataFrame) -> Mapping[str, Any]:
    first, final = (reads[name].isin(SUSPICIOUS).to_numpy(bool) for name in ("first", "final"))
    complete = ~reads[["first", "final"]].isin([INCOMPLETE]).any(axis=1).to_numpy(bool)
    truth = reads["is_positive"]
    known = truth.notna().to_numpy(bool)
    positive = truth.fillna(False).to_numpy(bool)
    crossed = complete & (first != final)
    right = crossed & known & (final == positive)
    flagged = reads["flagged"].to_numpy(bool)
    return {
        "reader": reads["reader"].iloc[0] if len(reads) else "",
        "images": len(reads),
        "agreed": int((complete & (first == flagged)).sum()),
        "changed": int((reads["first"] != reads["final"]).sum()),
        "to_suspicious": int((crossed & final).sum()),
        "to_not_suspicious": int((crossed & first).sum()),
        "rightly": int(right.sum()),
        "wrongly": int((crossed & known & (final != positive)).sum()),
        "truth_unknown": int((crossed & ~known).sum()),
        "sensitivity_first": _share(first[complete & known & positive]),
        "sensitivity_final": _share(final[complete & known & positive]),
        "specificity_first": _share(~first[complete & known & ~positive]),
        "specificity_final": _share(~final[complete & known & ~positive]),
    }


def _share(values: np.ndarray) -> float:
    return float(values.mean()) if len(values) else float("nan")
