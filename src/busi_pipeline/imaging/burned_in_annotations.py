"""Burned-in annotations: callipers and text that an examiner has drawn into an image.

Both are drawn by the scanner in one flat, bright grey, in pixels of the export: crosses with arms
of five to eight pixels, letters of eight to twenty. An image that was enlarged or shrunk
afterwards carries annotations of other sizes, and they are not found.
"""

from typing import NamedTuple

import cv2
import numpy as np

_ARMS = (11, 13, 15, 17)
_WIDTHS = (2, 3)
_MARGIN = 2
_CROSS_SCORE = 0.72
_CROSS_BRIGHTNESS = 150
_ARM_SHARE = 0.8

_TEXT_BRIGHTNESS = 190
_LETTER_HEIGHTS = (7, 22)
_LETTER_WIDTHS = (2, 24)
_LETTER_PIXELS = 12
_TEXT_CONTRAST = 70
_TEXT_SPREAD = 35
_LETTER_GAP = 14
_LETTERS = 2
# The scanner's own name stands in the upper left corner of nearly every image of BUSI.
_LOGO = (110, 35)


class Annotation(NamedTuple):
    """Where an annotation is, in pixels from the upper left corner, and how sure it is."""

    left: int
    top: int
    width: int
    height: int
    score: float


def find_cross(grey: np.ndarray) -> Annotation | None:
    """Return the likeliest cross of a calliper in uint8 (h, w), or None.

    Normalised correlation with crosses of eight sizes (OpenCV's matchTemplate); the strokes must
    be bright, and all four arms must be there, which separates a cross from a T. `score` is the
    correlation.
    """
    image = grey.astype(np.float32)
    best: Annotation | None = None
    for length in _ARMS:
        if min(grey.shape) < length + 2 * _MARGIN:
            continue
        for width in _WIDTHS:
            arms = _draw_arms(length, width)
            cross = arms.max(axis=0)
            alike = cv2.matchTemplate(image, cross, cv2.TM_CCOEFF_NORMED)
            for top, left in np.argwhere(alike > (best.score if best else _CROSS_SCORE)):
                window = image[top : top + len(cross), left : left + len(cross)]
                levels = (arms * window).sum(axis=(1, 2)) / arms.sum(axis=(1, 2))
                stroke = window[cross > 0].mean()
                score = float(alike[top, left])
                if stroke < _CROSS_BRIGHTNESS or levels.min() < _ARM_SHARE * levels.max():
                    continue
                if best is None or score > best.score:
                    best = Annotation(int(left), int(top), len(cross), len(cross), score)
    return best


def _draw_arms(length: int, width: int) -> np.ndarray:
    """Return float32 (4, side, side): the arms up, down, left and right."""
    side = length + 2 * _MARGIN
    first = side // 2 - width // 2
    stroke = slice(first, first + width)
    arms = np.zeros((4, side, side), dtype=np.float32)
    arms[0, _MARGIN : side // 2, stroke] = 1
    arms[1, side // 2 : side - _MARGIN, stroke] = 1
    arms[2, stroke, _MARGIN : side // 2] = 1
    arms[3, stroke, side // 2 : side - _MARGIN] = 1
    return arms


def find_text(grey: np.ndarray) -> Annotation | None:
    """Return the longest line of letters in uint8 (h, w), or None; `score` is how many.

    Letters are connected bright strokes of one grey on something clearly darker; a line is two or
    more of one height on one baseline. The scanner's name in the upper left corner does not count.
    """
    letters = sorted(_list_letters(grey))
    best: list[tuple[int, int, int, int]] = []
    for place, start in enumerate(letters):
        line = [start]
        for letter in letters[place + 1 :]:
            if _follows(line[-1], letter):
                line.append(letter)
        if len(line) > len(best):
            best = line
    if len(best) < _LETTERS:
        return None
    left, top = best[0][0], min(letter[1] for letter in best)
    right = best[-1][0] + best[-1][2]
    bottom = max(letter[1] + letter[3] for letter in best)
    return Annotation(left, top, right - left, bottom - top, float(len(best)))


def _follows(letter: tuple[int, int, int, int], other: tuple[int, int, int, int]) -> bool:
    same_line = abs((letter[1] + letter[3]) - (other[1] + other[3])) <= 2
    gap = other[0] - (letter[0] + letter[2])
    return same_line and abs(letter[3] - other[3]) <= 3 and -1 <= gap <= _LETTER_GAP


def _list_letters(grey: np.ndarray) -> list[tuple[int, int, int, int]]:
    """Return left, top, width and height of what may be letters."""
    bright = (grey >= _TEXT_BRIGHTNESS).astype(np.uint8)
    _, parts, boxes, _ = cv2.connectedComponentsWithStats(bright, connectivity=8)
    found = []
    for number, (left, top, width, height, pixels) in enumerate(boxes.tolist()):
        if (
            number == 0
            or not _LETTER_HEIGHTS[0] <= height <= _LETTER_HEIGHTS[1]
            or not _LETTER_WIDTHS[0] <= width <= _LETTER_WIDTHS[1]
            or pixels < _LETTER_PIXELS
            or (left < _LOGO[0] and top < _LOGO[1])
        ):
            continue
        around = np.s_[max(0, top - 3) : top + height + 3, max(0, left - 3) : left + width + 3]
        stroke = (parts[around] == number).astype(np.uint8)
        near = cv2.dilate(stroke, np.ones((3, 3), np.uint8))
        ring = (cv2.dilate(near, np.ones((5, 5), np.uint8)) > near).astype(bool)
        levels = grey[around][stroke.astype(bool)]
        contrast = np.median(levels) - np.median(grey[around][ring]) if ring.any() else 0
        flatness = np.percentile(levels, 90) - np.percentile(levels, 30)
        if contrast > _TEXT_CONTRAST and flatness < _TEXT_SPREAD:
            found.append((left, top, width, height))
    return found
