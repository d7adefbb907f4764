"""Show the pairs that were found to a person.

Apart from the search, whose result is cached.
"""

from collections.abc import Callable, Mapping

import pandas as pd
from matplotlib.figure import Figure

from busi_pipeline.config.schemas import PrivacySettings
from busi_pipeline.imaging.decoding import decode_image
from busi_pipeline.imaging.text_cover import cover_text
from busi_pipeline.plotting.style import PALETTE, NothingToShow, new_picture_grid, show_picture

# Pairs shown of each kind.
_SHOWN = 4


def plot_duplicate_pairs(
    raw_images: Mapping[str, Callable[[], bytes]],
    manifest: pd.DataFrame,
    duplicate_pairs: pd.DataFrame,
    privacy: PrivacySettings,
) -> Figure | NothingToShow:
    """Show the pairs by which a person can check the search.

    Those nearest the threshold on both sides, and those whose labels differ (in colour).
    """
    if duplicate_pairs.empty:
        return NothingToShow("No two images were found to show the same or a neighbouring frame.")
    pairs = duplicate_pairs.sort_values("score")
    same_frame = pairs["same_frame"].astype(bool)
    kinds = [
        ("same frame, least certain", pairs[same_frame].head(_SHOWN)),
        ("neighbouring frames, most alike", pairs[~same_frame].tail(_SHOWN)),
        (
            "same frame, different labels",
            pairs[same_frame & (pairs["label_a"] != pairs["label_b"])].head(_SHOWN),
        ),
    ]
    rows = [(title, row) for title, table in kinds for row in table.to_dict("records")]
    figure, axes = new_picture_grid(
        (-(-len(rows) // 2), 4),
        (2.75, 2.6),
        f"{same_frame.sum()} pairs of the same frame, {(~same_frame).sum()} of neighbouring frames",
    )
    paths = manifest.set_index("image_id")["path"]
    for pair, (title, row) in zip(axes.reshape(-1, 2), rows, strict=False):
        differs = row["label_a"] != row["label_b"]
        for axis, side in zip(pair, "ab", strict=True):
            name = row[f"image_{side}"].rsplit("/", 1)[-1]
            pixels = decode_image(raw_images[paths[row[f"image_{side}"]]]()).pixels
            show_picture(
                axis,
                cover_text(pixels) if privacy.cover_text else pixels,
                f"{title if side == 'a' else row['kind']}\n{name}"
                + (f" (score {row['score']:.2f})" if side == "a" else ""),
                PALETTE[1] if differs else "black",
            )
    return figure
