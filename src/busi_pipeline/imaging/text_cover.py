"""Cover burned-in text: a name in a picture identifies a patient.

Ultrasound resolves depth better than width, so bright specks of tissue lie flat. A letter has
upright strokes: thin, of one grey, in one row, several beside each other. So the search is one for
upright strokes, not for the shapes of letters, and finds letters five pixels high. No detector
proves that no name is left.
"""

from collections.abc import Iterator, Sequence
from typing import NamedTuple

import cv2
import numpy as np
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components

from busi_pipeline.imaging.decoding import UInt8Array

# Of what `cover_text` makes of a picture: what was computed from another version is not used.
COVER_VERSION = 2

# A frame says where a picture was smoothed. Neither tissue nor cyst.
FRAME_GREY = 110
# Sides of the window whose median takes the place of text. The strokes of letters are the smaller
# part of a window as high as their line, and letters are no larger than the largest.
_LEAST_WINDOW, _LARGEST_WINDOW = 9, 61


class Box(NamedTuple):
    """Pixels from the upper left corner; `right` and `bottom` are the first ones outside."""

    left: int
    top: int
    right: int
    bottom: int


class _Search(NamedTuple):
    """A search for letters of one size, in pixels of the image divided by `reduction`."""

    reduction: int
    # A stroke is brighter than what lies so far left and right of it.
    reaches: tuple[int, ...]
    shortest: int
    tallest: int
    # Strokes no farther apart may belong to one line.
    gap: int
    # What a line needs, see _measure_evidence.
    evidence: float


# Set on drawn text over images of BUSI and BUS-BRA, at their own size and at 224 x 224.
_SEARCHES = (
    _Search(1, (1, 2, 3), 3, 14, 7, 0.3),
    _Search(1, (2, 3, 4), 4, 32, 11, 0.4),
    _Search(2, (2, 3, 4), 6, 28, 12, 0.8),
    _Search(4, (2, 3, 4), 5, 14, 12, 0.6),
)
# Where the greys of a line deviate by a twentieth, its evidence is half.
_MIXTURE = 20
# Large letters are not looked for where the reduced image would be smaller.
_SMALLEST_REDUCED = 110

# A stroke has twice the contrast that 95 % of the pixels stay below. Black pixels do not count:
# beside a black margin all tissue would stand out.
_NOISE_SHARE = 0.95
_NOISE_FACTOR = 2
_LEAST_CONTRAST = 8
_BLACK = 8
# Letters of one line differ by at most this share of their grey.
_GREY_TOLERANCE = 0.2
_LONGEST_LINE = 60
# A bound on the time that an image of noise takes.
_MOST_STROKES = 400
_MOST_LINES = 8

# A line goes on with strokes of its grey within this many of its heights, even if they are fainter.
_REACH = 1.6
_FAINTER = 0.5
_FAINTER_CONTRAST = 0.3
# An A or a W has no upright stroke at its ends: the cover is wider than the strokes, by this share
# of their height.
_MARGIN_ACROSS = 0.7
_MARGIN_DOWN = 0.2

# The largest dot of a dotted line between callipers.
_DOT = 4
# A light bar: runs of pixels that are no darker, and alike.
_LIGHT = 150
_FLAT = 10
_RUN = 15
_LEAST_LIGHT_SHARE = 0.002


class _Strokes(NamedTuple):
    """Upright strokes, one entry each: where they are, and their highest contrast and grey."""

    left: np.ndarray
    top: np.ndarray
    right: np.ndarray
    bottom: np.ndarray
    contrast: np.ndarray
    grey: np.ndarray

    @property
    def height(self) -> np.ndarray:
        return self.bottom - self.top

    def select(self, which: np.ndarray) -> "_Strokes":
        return _Strokes(*(values[which] for values in self))


class _Line(NamedTuple):
    """Strokes of one grey in one row, and the box around them."""

    strokes: _Strokes
    box: Box

    @property
    def contrast(self) -> float:
        return float(np.median(self.strokes.contrast))

    @property
    def grey(self) -> float:
        return float(np.median(self.strokes.grey))


def cover_text(pixels: UInt8Array, framed: bool = True) -> UInt8Array:
    """Return a copy of uint8 (h, w, 3) RGB whose burned-in text is smoothed away.

    Finds lines of two or more characters that are brighter than what surrounds them, or dark on a
    light bar, with capitals of about 5 to 40 pixels. In a rectangle around each, the median over a
    square as high as the letters takes the place of the pixels: strokes vanish, and what is larger
    than the letters stays as a shape. Some tissue may be smoothed as well, and a lesion that is
    no larger than letters beside it may vanish. A single character, text that runs downwards, and
    faint, smaller or larger text may stay.

    Args:
        pixels: the picture.
        framed: whether a thin grey line marks what was smoothed, for those who look at it.
    """
    covered = pixels.copy()
    boxes = find_text_boxes(pixels)
    # OpenCV's median repeats the edge, and with it letters that touch it.
    around = cv2.copyMakeBorder(pixels, *4 * (_LARGEST_WINDOW // 2,), cv2.BORDER_REFLECT_101)
    # Where they overlap, the one of the larger letters counts.
    for box in sorted(boxes, key=lambda box: box.bottom - box.top):
        covered[box.top : box.bottom, box.left : box.right] = _smooth(around, box)
    if framed:
        inside = mark_boxes(boxes, pixels.shape[:2])
        outlines, _ = cv2.findContours(inside, cv2.RETR_EXTERNAL, cv2.CHAIN_APPROX_NONE)
        cv2.drawContours(covered, outlines, -1, 3 * (FRAME_GREY,))
    return covered


def mark_boxes(boxes: Sequence[Box], shape: tuple[int, ...]) -> UInt8Array:
    """Return uint8 of a shape (height, width), 1 where a box is."""
    inside = np.zeros(shape, dtype=np.uint8)
    for box in boxes:
        inside[box.top : box.bottom, box.left : box.right] = 1
    return inside


def _smooth(around: np.ndarray, box: Box) -> UInt8Array:
    """Return the median around each pixel of a box.

    Args:
        around: uint8, a picture that has half of the largest window more at each side.
        box: in the picture.
    """
    height = box.bottom - box.top
    side = min(_LARGEST_WINDOW, max(_LEAST_WINDOW, height)) | 1
    half = side // 2
    top, left = (edge + _LARGEST_WINDOW // 2 - half for edge in (box.top, box.left))
    near = around[top : top + height + 2 * half, left : left + box.right - box.left + 2 * half]
    smooth = cv2.medianBlur(np.ascontiguousarray(near), side).astype(np.uint8, copy=False)
    return smooth[half : half + height, half : half + box.right - box.left]


def find_text_boxes(pixels: UInt8Array) -> list[Box]:
    """Return rectangles around what may be text in uint8 (h, w, 3) RGB; they may overlap."""
    # Coloured text is bright in one channel. Pairwise: a reduction over the last axis is slow.
    brightest = np.maximum(np.maximum(pixels[..., 0], pixels[..., 1]), pixels[..., 2])
    boxes = _search_all(brightest)
    if _has_light_bar(brightest):
        boxes += _search_all(255 - brightest, on_flat=True)
    return boxes


def _search_all(grey: np.ndarray, on_flat: bool = False) -> list[Box]:
    """Return the boxes of all searches, with their margins, in pixels of uint8 (h, w)."""
    height, width = grey.shape
    boxes = []
    for search in _SEARCHES:
        factor = search.reduction
        reduced = grey
        if factor > 1:
            size = (width // factor, height // factor)
            if min(size) < _SMALLEST_REDUCED:
                continue
            reduced = cv2.resize(grey, size, interpolation=cv2.INTER_AREA)
        for line in _find_lines(reduced, search, on_flat):
            tall = factor * (line.bottom - line.top)
            across, down = round(_MARGIN_ACROSS * tall) + 2, round(_MARGIN_DOWN * tall) + 2
            boxes.append(
                Box(
                    max(0, factor * line.left - across),
                    max(0, factor * line.top - down),
                    min(width, factor * line.right + across),
                    min(height, factor * line.bottom + down),
                )
            )
    return boxes


def _find_lines(grey: np.ndarray, search: _Search, on_flat: bool) -> Iterator[Box]:
    """Yield tight boxes around the strokes of what may be text in uint8 (h, w)."""
    contrast = _measure_contrast(grey, search.reaches)
    column = np.ones((search.shortest, 1), dtype=np.uint8)
    upright = cv2.morphologyEx(contrast, cv2.MORPH_OPEN, column)
    least = max(_LEAST_CONTRAST, _NOISE_FACTOR * _measure_noise(upright, grey))
    strokes, group = _list_strokes(upright >= least, contrast, grey, search)
    detail = cv2.absdiff(grey, cv2.medianBlur(grey, 5))
    for line in _collect_lines(strokes, group, detail, search.evidence * least):
        if _is_dotted(line, grey) or (on_flat and not _is_on_flat(line.box, grey)):
            continue
        height = line.box.bottom - line.box.top
        first = max(0, line.box.top - height)
        near = slice(first, line.box.bottom + height)
        fainter, _ = _list_strokes(
            upright[near] >= _FAINTER * least, contrast[near], grey[near], search
        )
        fainter = fainter._replace(top=fainter.top + first, bottom=fainter.bottom + first)
        yield _include_letters(_extend_line(line, fainter), grey, line.grey)


def _measure_contrast(grey: np.ndarray, reaches: tuple[int, ...]) -> np.ndarray:
    """Return uint8 (h, w): by how much a pixel is brighter than both its left and its right.

    The smaller of the two differences, as an edge is no stroke; the largest of all reaches.
    """
    width, margin = grey.shape[1], max(reaches)
    padded = cv2.copyMakeBorder(grey, 0, 0, margin, margin, cv2.BORDER_REPLICATE)
    contrast = np.zeros_like(grey)
    for reach in reaches:
        # OpenCV's difference stops at 0 where NumPy's would wrap.
        left, right = (
            cv2.subtract(grey, padded[:, start : start + width])
            for start in (margin - reach, margin + reach)
        )
        contrast = cv2.max(contrast, cv2.min(left, right))
    return contrast


def _measure_noise(contrast: np.ndarray, grey: np.ndarray) -> int:
    """Return the 95th percentile of the contrast of all pixels that are not black."""
    seen = (grey > _BLACK).astype(np.uint8)
    counts = cv2.calcHist([contrast], [0], seen, [256], [0, 256]).ravel().cumsum()
    return int(np.searchsorted(counts, _NOISE_SHARE * counts[-1]))


def _list_strokes(
    mask: np.ndarray, contrast: np.ndarray, grey: np.ndarray, search: _Search
) -> tuple[_Strokes, np.ndarray]:
    """Return the parts of a bool (h, w) mask that are no larger than a stroke, and their groups.

    Parts are in one group if a row has pixels of both no farther apart than the gap.
    """
    count, parts, boxes, _ = cv2.connectedComponentsWithStats(mask.astype(np.uint8))
    pixel = np.flatnonzero(mask)
    part = parts.ravel()[pixel].astype(np.int32)
    highest, brightest = (np.zeros(count, dtype=np.int32) for _ in range(2))
    np.maximum.at(highest, part, contrast.ravel()[pixel])
    np.maximum.at(brightest, part, grey.ravel()[pixel])
    in_row = np.diff(pixel // mask.shape[1]) == 0
    near = np.flatnonzero(in_row & (np.diff(pixel) <= search.gap))
    links = coo_array((np.ones(len(near)), (part[near], part[near + 1])), (count, count))
    group = connected_components(links, directed=False)[1]
    left, top, width, height = boxes[:, :4].T
    strokes = _Strokes(left, top, left + width, top + height, highest, brightest)
    fits = (height <= search.tallest) & (width <= 2 * search.tallest)  # a W is wide
    fits[0] = False  # the background
    return strokes.select(fits), group[fits]


def _collect_lines(
    strokes: _Strokes, group: np.ndarray, detail: np.ndarray, needed: float
) -> Iterator[_Line]:
    """Yield the strokes of like grey in one row that are evidence enough of text."""
    highest = np.zeros(group.max(initial=0) + 1)
    np.maximum.at(highest, group, strokes.contrast)
    # Fine detail does not reach half of the grey, so most groups hold no line.
    most = (np.bincount(group, minlength=len(highest)) - 1) * highest / 2
    order = np.lexsort((strokes.left, group))
    order = order[most[group[order]] >= needed]
    starts = np.flatnonzero(np.diff(group[order], prepend=-1))
    for members in np.split(order, starts[1:]):
        for start in range(0, len(members), _MOST_STROKES):
            rest = strokes.select(members[start : start + _MOST_STROKES])
            for _ in range(_MOST_LINES):
                if len(rest.left) < 2:
                    break
                alike = _find_alike(rest)
                found, rest = rest.select(alike), rest.select(~alike)
                box = Box(
                    int(found.left.min()),
                    int(found.top.min()),
                    int(found.right.max()),
                    int(found.bottom.max()),
                )
                line = _Line(found, box)
                if _measure_evidence(line, detail) >= needed:
                    yield line


def _measure_evidence(line: _Line, detail: np.ndarray) -> float:
    """Return the contrast of a line, more for many strokes and fine detail, less for mixed greys.

    Args:
        line: strokes in one row.
        detail: what a median over 5 x 5 pixels takes away, uint8 (h, w).
    """
    rows, columns = slice(line.box.top, line.box.bottom), slice(line.box.left, line.box.right)
    texture = detail[rows, columns].mean() / line.grey
    mixture = line.strokes.grey.std() / line.grey
    others = len(line.strokes.left) - 1
    return float(others * line.contrast * texture / (1 + _MIXTURE * mixture))


def _find_alike(strokes: _Strokes) -> np.ndarray:
    """Return which strokes are of one grey and in one row, the largest such set, as bool (n,)."""
    overlap = np.minimum(strokes.bottom[:, None], strokes.bottom) - np.maximum(
        strokes.top[:, None], strokes.top
    )
    in_row = 2 * overlap >= np.minimum(strokes.height[:, None], strokes.height)
    difference = np.abs(strokes.grey[:, None] - strokes.grey)
    like_grey = difference <= _GREY_TOLERANCE * strokes.grey[:, None]
    near = np.abs(strokes.left[:, None] - strokes.left) <= _LONGEST_LINE
    alike: np.ndarray = in_row & like_grey & near
    most: np.ndarray = alike[alike.sum(axis=1).argmax()]
    return most


def _is_dotted(line: _Line, grey: np.ndarray) -> bool:
    """Return whether most strokes are dots apart from each other, as between two callipers."""
    rows = slice(max(0, line.box.top - _DOT), line.box.bottom + _DOT)
    columns = slice(max(0, line.box.left - _DOT), line.box.right + _DOT)
    bright = (grey[rows, columns] >= 0.6 * line.grey).astype(np.uint8)
    _, parts, boxes, _ = cv2.connectedComponentsWithStats(bright)
    is_dot = (boxes[:, 2] <= _DOT) & (boxes[:, 3] <= _DOT)
    is_dot[0] = False
    strokes = line.strokes
    of_stroke = parts[
        (strokes.top + strokes.bottom) // 2 - rows.start,
        (strokes.left + strokes.right) // 2 - columns.start,
    ]
    dots = of_stroke[is_dot[of_stroke]]
    # Two strokes in one part are a small letter.
    return 2 * len(dots) > len(of_stroke) and len(np.unique(dots)) >= 0.9 * len(dots)


def _extend_line(line: _Line, strokes: _Strokes) -> Box:
    """Return the box of a line with the strokes left and right of it that go on with it."""
    left, top, right, bottom = line.box
    height = bottom - top
    overlap = np.minimum(strokes.bottom, bottom) - np.maximum(strokes.top, top)
    fits = (
        (overlap >= 0.6 * np.minimum(strokes.height, height))
        & (strokes.height >= 0.25 * height)
        & (strokes.height <= 1.5 * height)
        & (np.abs(strokes.grey - line.grey) <= _GREY_TOLERANCE * line.grey)
        & (strokes.contrast >= _FAINTER_CONTRAST * line.contrast)
    )
    lefts, rights = strokes.left[fits], strokes.right[fits]
    while True:
        near = (lefts < right + _REACH * height) & (rights > left - _REACH * height)
        wider = int(lefts[near].min(initial=left)), int(rights[near].max(initial=right))
        if wider == (left, right):
            return Box(left, top, right, bottom)
        left, right = wider


def _include_letters(box: Box, grey: np.ndarray, level: float) -> Box:
    """Return the box with the whole of each letter that it cuts.

    A letter is what is as bright as the line in uint8 (h, w) and ends within one height of it.
    """
    height = box.bottom - box.top
    top, left = max(0, box.top - height), max(0, box.left - height)
    near = grey[top : box.bottom + height, left : box.right + height]
    _, _, parts, _ = cv2.connectedComponentsWithStats((near >= 0.85 * level).astype(np.uint8))
    first, upper, width, tall = parts[1:, :4].T
    first, upper = first + left, upper + top
    last, lower = first + width, upper + tall
    cut = (first < box.right) & (last > box.left) & (upper < box.bottom) & (lower > box.top)
    ends = (
        ((first > left) | (left == 0))
        & ((upper > top) | (top == 0))
        & ((last < left + near.shape[1]) | (last == grey.shape[1]))
        & ((lower < top + near.shape[0]) | (lower == grey.shape[0]))
    )
    letters = cut & ends
    return Box(
        int(first[letters].min(initial=box.left)),
        int(upper[letters].min(initial=box.top)),
        int(last[letters].max(initial=box.right)),
        int(lower[letters].max(initial=box.bottom)),
    )


def _has_light_bar(grey: np.ndarray) -> bool:
    """Return whether some of uint8 (h, w) is light and flat, as a header with dark text is."""
    run = np.ones((3, _RUN), dtype=np.uint8)
    darkest, brightest = cv2.erode(grey, run), cv2.dilate(grey, run)
    is_flat = (darkest >= _LIGHT) & (cv2.subtract(brightest, darkest) <= _FLAT)
    return bool(is_flat.mean() >= _LEAST_LIGHT_SHARE)


def _is_on_flat(box: Box, inverted: np.ndarray) -> bool:
    """Return whether dark text, bright in the inverted uint8 (h, w), stands on a flat ground."""
    rows = slice(max(0, box.top - 2), box.bottom + 2)
    low, middle = np.percentile(inverted[rows, box.left : box.right], (10, 45))
    return bool(middle - low <= _FLAT)
