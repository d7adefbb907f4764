"""What a challenger said of the images that the champion answered on."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pandas as pd

from busi_pipeline.errors import BadInputError


def compare_shadow(path: Path) -> pd.DataFrame:
    """Return a row a pair of models, of all images that both saw, each image once.

    `champion`, `challenger`, `images`; shares flagged by each; `flagged_by_both`,
    `by_champion_alone`, `by_challenger_alone`, `by_neither` (numbers); `score_difference`, the
    median of challenger less champion, and `score_correlation`, by ranks.

    Raises BadInputError where there is no such file.
    """
    if not path.is_file():
        raise BadInputError(
            f"no comparisons in {path}: start the service with --shadow {path}, and give a model "
            "the role `challenger`."
        )
    lines = [own for line in path.read_text().splitlines() if (own := _read(line)) is not None]
    if not lines:
        raise BadInputError(f"no comparisons in {path} yet.")
    table = pd.DataFrame(lines).drop_duplicates(["champion", "challenger", "byte_sha256", "box"])
    return pd.DataFrame(
        [_summarise(pair, seen) for pair, seen in table.groupby(["champion", "challenger"])]
    )


def _read(line: str) -> dict[str, Any] | None:
    """Return a line; None for one that was cut off when the service ended."""
    try:
        return dict(json.loads(line))
    except ValueError:
        return None


def _summarise(pair: Any, seen: pd.DataFrame) -> Mapping[str, Any]:
    own, other = seen["champion_flagged"], seen["challenger_flagged"]
    scores = seen[["champion_score", "challenger_score"]]
    return {
        "champion": pair[0],
        "challenger": pair[1],
        "images": len(seen),
        "champion_flags": own.mean(),
        "challenger_flags": other.mean(),
        "flagged_by_both": int((own & other).sum()),
        "by_champion_alone": int((own & ~other).sum()),
        "by_challenger_alone": int((other & ~own).sum()),
        "by_neither": int((~own & ~other).sum()),
        "score_difference": (scores.iloc[:, 1] - scores.iloc[:, 0]).median(),
        "score_correlation": scores.corr("spearman").iloc[0, 1],
    }
