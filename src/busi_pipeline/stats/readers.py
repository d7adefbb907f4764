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
    """Return a row a reader and version of a model.

    Args:
        reads: a row an image that a reader read: `reader`, `model_version`; `first` and `final`, of
            CATEGORIES, before and after the answer, `final` missing where there is no decision;
            `flagged`, by the model; `is_positive`, the truth, missing where it is not known.

    `images`, with a decision; `undecided`, without one, which count nowhere else. `agreed`: whose
    first category is suspicious where the model flags, and not where it does not. `changed`:
    another category. `to_suspicious`, `to_not_suspicious`: over the line of a biopsy; of these
    `rightly`, `wrongly` and `truth_unknown`. `incomplete`: one of the two is category 0, so that
    no line is crossed. Of images whose truth is known, and that are not incomplete:
    `positives` and how many of them are suspicious, `positives_first`, `positives_final`;
    `negatives` and how many are not, `negatives_first`, `negatives_final`.
    """
    named = reads.assign(key=reads["reader"].str.casefold())
    rows = [_count_reader(own) for _, own in named.groupby(["key", "model_version"])]
    return pd.DataFrame(rows, columns=list(_count_reader(named.iloc[:0])))


def _count_reader(reads: pd.DataFrame) -> Mapping[str, Any]:
    decided = reads[reads["final"].notna()]
    first, final = (decided[name].isin(SUSPICIOUS).to_numpy(bool) for name in ("first", "final"))
    complete = ~decided[["first", "final"]].isin([INCOMPLETE]).any(axis=1).to_numpy(bool)
    truth = decided["is_positive"]
    known = complete & truth.notna().to_numpy(bool)
    positive = truth.eq(True).to_numpy(bool)
    crossed = complete & (first != final)
    said = decided["first"].ne(INCOMPLETE).to_numpy(bool)
    flagged = decided["flagged"].to_numpy(bool)
    counts = {
        "images": decided.index == decided.index,
        "undecided": reads["final"].isna(),
        "agreed": said & (first == flagged),
        "changed": decided["first"] != decided["final"],
        "to_suspicious": crossed & final,
        "to_not_suspicious": crossed & first,
        "rightly": crossed & known & (final == positive),
        "wrongly": crossed & known & (final != positive),
        "truth_unknown": crossed & ~known,
        "incomplete": ~complete,
        "positives": known & positive,
        "positives_first": known & positive & first,
        "positives_final": known & positive & final,
        "negatives": known & ~positive,
        "negatives_first": known & ~positive & ~first,
        "negatives_final": known & ~positive & ~final,
    }
    return {
        "reader": reads["reader"].iloc[0] if len(reads) else "",
        "model_version": reads["model_version"].iloc[0] if len(reads) else "",
        **{name: int(np.sum(np.asarray(own, bool))) for name, own in counts.items()},
    }
