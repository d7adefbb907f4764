"""The strip below a picture: what it shows, for whoever sees it without its report."""

import textwrap

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from busi_pipeline.imaging.decoding import UInt8Array

_GROUND, _INK = (0, 0, 0), (255, 255, 255)
# Of the longer side; a letter is about half as wide as it is high.
_SHARE, _SMALLEST = 1 / 45, 11


def add_legend(pixels: UInt8Array, text: str) -> UInt8Array:
    """Return uint8 (h + n, w, 3): an image, unchanged, and n rows with text below it.

    Args:
        pixels: uint8 (h, w, 3), RGB.
        text: ASCII; broken into as many lines as it takes.
    """
    height, width = pixels.shape[:2]
    size = max(_SMALLEST, round(max(height, width) * _SHARE))
    font = ImageFont.load_default(size)
    margin = size // 2
    letters = max(1, int((width - 2 * margin) / (font.getlength("n"))))
    lines = textwrap.wrap(text, letters)
    step = round(1.35 * size)
    strip = Image.new("RGB", (width, 2 * margin + step * len(lines)), _GROUND)
    draw = ImageDraw.Draw(strip)
    for number, line in enumerate(lines):
        draw.text((margin, margin + number * step), line, fill=_INK, font=font)
    return np.concatenate([pixels, np.asarray(strip)])
