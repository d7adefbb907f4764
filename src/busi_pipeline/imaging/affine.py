"""Augment one image: the affine transform that a row of the augmentation plan describes."""

from collections.abc import Iterator
from typing import NamedTuple

import cv2
import numpy as np
import pandas as pd

from busi_pipeline.imaging.decoding import UInt8Array

# Augmentations of an image: 1, 2, ... are to learn from; by these two it is evaluated, too.
ORIGINAL, FLIPPED = 0, -1
# The column of the plan with the seed of `scanner_variation.vary_scanner`, and what it holds where
# the image stays as it was scanned.
SCANNER_SEED, AS_SCANNED = "scanner_seed", 0


def list_evaluated(window: int) -> tuple[int, int]:
    """Return the numbers of a window's two augmentations that an image is evaluated by: of the
    first, ORIGINAL and FLIPPED; of the others, those below."""
    return ORIGINAL - 2 * window, FLIPPED - 2 * window


class AffineTransform(NamedTuple):
    """How an image is changed; by default not at all. The columns of the augmentation plan."""

    rotation_degrees: float = 0.0
    zoom: float = 1.0
    flip_horizontal: bool = False
    flip_vertical: bool = False
    shift_x: float = 0.0
    shift_y: float = 0.0
    shear_degrees: float = 0.0
    brightness: float = 1.0


def apply_affine(pixels: UInt8Array, transform: AffineTransform) -> UInt8Array:
    """Return uint8 (h, w, 3): flipped, sheared, zoomed and rotated about the centre, shifted.

    Positive rotation turns counter-clockwise, positive shifts move right and down (as a share of
    width and height), zoom 1.1 enlarges by a tenth. All in one bilinear interpolation; beyond its
    edge the image is reflected, since black corners, which no evaluated image has, cost more than
    augmentation gains (docs/experiment-log.md). `learning.batch_affine` does the same for a batch,
    on whatever device Keras computes.
    """
    height, width = pixels.shape[:2]
    result = cv2.warpAffine(
        pixels,
        np.reshape(invert_affine(transform, height, width), (2, 3)),
        (width, height),
        flags=cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP,
        borderMode=cv2.BORDER_REFLECT,
    ).astype(np.uint8, copy=False)
    if transform.brightness != 1.0:
        result = np.clip(np.round(result * transform.brightness), 0, 255).astype(np.uint8)
    return result


def invert_affine(
    transform: AffineTransform, height: int, width: int
) -> tuple[float, float, float, float, float, float]:
    """Return (a, b, c, d, e, f): what is at (x, y) after the transform was at (a x + b y + c,
    d x + e y + f) before, in pixels from the centre of the upper left one."""
    angle = np.deg2rad(transform.rotation_degrees)
    # Image rows run downwards, so the counter-clockwise turn has its sine negated.
    rotation = np.array([[np.cos(angle), np.sin(angle)], [-np.sin(angle), np.cos(angle)]])
    shear = np.array([[1.0, np.tan(np.deg2rad(transform.shear_degrees))], [0.0, 1.0]])
    flip = np.diag(
        [-1.0 if transform.flip_horizontal else 1.0, -1.0 if transform.flip_vertical else 1.0]
    )
    forward = rotation @ shear @ flip * transform.zoom
    back = np.linalg.inv(forward)
    centre = np.array([width - 1, height - 1]) / 2
    shift = np.array([transform.shift_x * width, transform.shift_y * height])
    offset = centre - back @ (centre + shift)
    return back[0, 0], back[0, 1], offset[0], back[1, 0], back[1, 1], offset[1]


def list_transforms(plan: pd.DataFrame) -> Iterator[AffineTransform]:
    """Yield the transform of each row of an augmentation plan."""
    columns = (plan[name].tolist() for name in AffineTransform._fields)
    return map(AffineTransform._make, zip(*columns, strict=True))
