"""Show the pairs that were found to a person.

Apart from the search, whose result is kept under the hash of its code.
"""

import pandas as pd
from matplotlib.figure import Figure

from busi_pipeline.figures import PALETTE, new_picture_grid, show_picture
from busi_pipeline.images import decode_image

from .nodes import RawImages

# Pairs shown of each kind.
_SHOWN = 4


def draw_copy_pairs(
    raw_images: RawImages, manifest: pd.DataFrame, copy_pairs: pd.DataFrame
) -> Figure:
    """Show pairs to judge the finding by: nearest the threshold on both sides, and mixed labels."""
    pairs = copy_pairs.sort_values("score")
    drawn = [
        ("least certain of the same frame", pairs[pairs["same_frame"]].head(_SHOWN)),
        ("most alike of neighbouring frames", pairs[~pairs["same_frame"]].tail(_SHOWN)),
        (
            "same frame, different labels",
            pairs[pairs["same_frame"] & (pairs["label_a"] != pairs["label_b"])].head(_SHOWN),
        ),
    ]
    rows = [(title, row) for title, table in drawn for _, row in table.iterrows()]
    same = int(copy_pairs["same_frame"].sum())
    figure, axes = new_picture_grid(
        (max(1, -(-len(rows) // 2)), 4),
        (2.75, 2.6),
        f"{same} pairs of the same frame, {len(copy_pairs) - same} of neighbouring frames",
    )
    paths = manifest.set_index("image_id")["path"]
    for pair, (title, row) in zip(axes.reshape(-1, 2), rows, strict=False):
        for axis, side in zip(pair, "ab", strict=True):
            name = row[f"image_{side}"].rsplit("/", 1)[-1]
            differs = row["label_a"] != row["label_b"]
            show_picture(
                axis,
                decode_image(raw_images[paths[row[f"image_{side}"]]]()).pixels,
                f"{title if side == 'a' else row['kind']}\n{name}"
                + (f" (score {row['score']:.2f})" if side == "a" else ""),
                PALETTE[1] if differs else "black",
            )
    return figure
