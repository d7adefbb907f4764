"""Bring an image to the size that a network takes."""

import numpy as np
from PIL import Image

from busi_pipeline.imaging.decoding import UInt8Array


def resize_image(pixels: UInt8Array, size: int) -> UInt8Array:
    """Resize uint8 (h, w, 3) to (size, size, 3), antialiased; the aspect ratio is not kept.

    The published work stretches as well, so results stay comparable.
    """
    image = Image.fromarray(pixels).resize((size, size), Image.Resampling.BILINEAR)
    return np.asarray(image)
