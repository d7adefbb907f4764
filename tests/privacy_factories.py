"""A picture with a name in it, and what a figure shows."""

import cv2
import numpy as np
from matplotlib.figure import Figure

from busi_pipeline.config.schemas import PrivacySettings

COVERED, UNCOVERED = (PrivacySettings(cover_text=cover) for cover in (True, False))
INK = 250


def make_named_picture(height: int = 120, width: int = 160) -> np.ndarray:
    """Return a grey picture with a name in its middle, uint8 (height, width, 3)."""
    return write_name(np.full((height, width, 3), 60, dtype=np.uint8))


def write_name(picture: np.ndarray) -> np.ndarray:
    """Write a name into the middle of uint8 (height, width, 3), and return it."""
    height, width = picture.shape[:2]
    place, ink = (width // 8, height // 2), (INK, INK, INK)
    return cv2.putText(picture, "ERIKA M", place, cv2.FONT_HERSHEY_SIMPLEX, 0.55, ink, 1)


def list_pictures(figure: Figure) -> list[np.ndarray]:
    """Return the pixels that each axis shows, without what is laid over them."""
    return [np.asarray(axis.images[0].get_array()) for axis in figure.axes if axis.images]
