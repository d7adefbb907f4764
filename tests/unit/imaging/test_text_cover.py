"""Text cover: letters of all sizes, greys and places disappear, tissue stays."""

from collections.abc import Iterator
from itertools import product
from typing import Any

import cv2
import numpy as np
import pytest
from matplotlib import font_manager
from PIL import Image, ImageDraw, ImageFont

from busi_pipeline.imaging.resizing import resize_image
from busi_pipeline.imaging.text_cover import FRAME_GREY, cover_text, find_text_boxes, mark_boxes
from tests.privacy_factories import INK, make_named_picture

SANS, BOLD = (
    font_manager.findfont(font_manager.FontProperties(family="DejaVu Sans", weight=weight))
    for weight in ("normal", "bold")
)
# Left end and top of the text, in an image of 470 x 560.
PLACES = {"upper left": (6, 4), "middle": (120, 220), "lower right": (180, 400)}


# A mean or median over 9 x 9 pixels leaves more, and letters that can be read.
LEGIBLE = 0.2
WORDS = ["QSE", "72", "12.4 mm", "MAMA DIREITA 66 ANOS", "9H", "Li Na", "WM W"]


def draw_tissue(seed: int, brightest: int = 150, spread: float = 3.0) -> np.ndarray:
    """Return flat specks that darken with depth, uint8 (470, 560, 3)."""
    rng = np.random.default_rng(seed)
    specks = cv2.GaussianBlur(rng.gamma(2.0, 1.0, (470, 560)), (0, 0), spread, sigmaY=spread / 2.5)
    layers = cv2.GaussianBlur(rng.gamma(2.0, 1.0, (470, 560)), (0, 0), 30, sigmaY=6)
    grey = specks / specks.max() + layers / layers.max()
    grey *= np.linspace(1, 0.4, 470)[:, None]
    return np.repeat((grey / grey.max() * brightest).astype(np.uint8)[..., None], 3, axis=2)


def draw_letters(text: str, at: tuple[int, int], size: int, font: str = SANS) -> np.ndarray:
    """Return how much of each pixel is ink, 0 to 1, (470, 560); size in pixels."""
    if font == "opencv":
        ink = np.zeros((470, 560), dtype=np.uint8)
        scale = size / 29  # OpenCV's capitals have 21 pixels at a scale of 1
        thickness = 1 if size < 20 else 2
        place = (at[0], at[1] + size)
        cv2.putText(ink, text, place, cv2.FONT_HERSHEY_SIMPLEX, scale, 255, thickness, cv2.LINE_AA)
        return ink / 255
    image = Image.new("L", (560, 470))
    ImageDraw.Draw(image).text(at, text, font=ImageFont.truetype(font, size), fill=255)
    return np.asarray(image) / 255


def lay_over(pixels: np.ndarray, ink: np.ndarray, colour: tuple[int, int, int]) -> np.ndarray:
    share = ink[..., None]
    return (pixels * (1 - share) + np.array(colour) * share).astype(np.uint8)


def shrink(ink: np.ndarray) -> np.ndarray:
    return resize_image(np.repeat((255 * ink).astype(np.uint8)[..., None], 3, 2), 224)[..., 0] / 255


def share_covered(picture: np.ndarray, ink: np.ndarray) -> float:
    """Return the share of the ink that rectangles cover; see that nothing shows through them."""
    assert (ink > 0.5).sum() > 20
    inside = mark_boxes(find_text_boxes(picture), ink.shape) > 0
    assert measure_legibility(cover_text(picture, framed=False), ink, inside) < LEGIBLE
    return float(inside[ink > 0.5].mean())


def measure_legibility(pixels: np.ndarray, ink: np.ndarray, inside: np.ndarray) -> float:
    """Return the correlation of grey and ink in what is inside; 1 is ink.

    What is coarser than two letters does not count.
    """
    rows = np.flatnonzero((ink > 0.5).any(axis=1))
    tallest = max(len(line) for line in np.split(rows, np.flatnonzero(np.diff(rows) > 1) + 1))
    side = 2 * tallest + 1
    grey, strokes = pixels.max(axis=2).astype(np.float32), ink.astype(np.float32)
    fine = [values - cv2.blur(values, (side, side)) for values in (grey, strokes)]
    if fine[0][inside].std() < 2:
        return 0.0
    return abs(float(np.corrcoef(fine[0][inside], fine[1][inside])[0, 1]))


def list_lettering(*sizes: int) -> Iterator[Any]:
    """Yield fonts, sizes, greys and places in which each pair of values meets (a Latin square)."""
    fonts, greys = {"sans": SANS, "bold": BOLD, "opencv": "opencv"}, [170, 210, 255]
    for (n, font), (m, grey) in product(enumerate(fonts), enumerate(greys)):
        for k, size in enumerate(sizes):
            if (n + m + k) % 3 == 0:
                place = list(PLACES)[(n + 2 * m + k // 3) % len(PLACES)]
                name = f"{font}-{size}-{grey}-{place}"
                yield pytest.param(fonts[font], size, grey, place, id=name)


@pytest.mark.parametrize(("font", "size", "grey", "place"), list_lettering(11, 14, 20, 28, 40, 52))
def test_no_letter_is_left(font: str, size: int, grey: int, place: str) -> None:
    ink = draw_letters("RT Maria K.", PLACES[place], size, font)
    picture = lay_over(draw_tissue(size), ink, (grey, grey, grey))
    assert share_covered(picture, ink) == 1


@pytest.mark.parametrize("at", [(0, 0), (370, 0), (0, 443), (370, 443)])
def test_no_letter_is_left_at_the_edges(at: tuple[int, int]) -> None:
    ink = draw_letters("RT Maria K.", at, 26, BOLD)
    picture = lay_over(draw_tissue(11), ink, (255, 255, 255))
    assert share_covered(picture, ink) == 1


def test_what_can_be_read_is_measured_as_such() -> None:
    for size in (14, 28, 52):
        ink = draw_letters("RT Maria K.", (120, 220), size, BOLD)
        picture = lay_over(draw_tissue(size), ink, (230, 230, 230))
        inside = cv2.dilate(ink, np.ones((9, 9))) > 0.5
        for soft in (cv2.blur(picture, (9, 9)), cv2.medianBlur(picture, 9)):
            assert measure_legibility(soft, ink, inside) > LEGIBLE, size


@pytest.mark.parametrize(("font", "size", "grey", "place"), list_lettering(20, 28, 40))
def test_no_letter_is_left_at_the_network_size(font: str, size: int, grey: int, place: str) -> None:
    ink = draw_letters("RT Maria K.", PLACES[place], size, font)
    picture = lay_over(draw_tissue(size), ink, (grey, grey, grey))
    assert share_covered(resize_image(picture, 224), shrink(ink)) == 1


@pytest.mark.parametrize("text", WORDS)
def test_short_and_long_words_are_covered(text: str) -> None:
    ink = draw_letters(text, (90, 250), 16)
    picture = lay_over(draw_tissue(3), ink, (230, 230, 230))
    assert share_covered(picture, ink) == 1


@pytest.mark.parametrize("shape", [(120, 160), (128, 128)])
def test_names_of_the_plots_tests_are_covered(shape: tuple[int, int]) -> None:
    picture = make_named_picture(*shape)
    assert (picture == INK).any()
    assert (cover_text(picture) < INK).all()


def test_words_on_several_lines_are_covered() -> None:
    ink = sum(
        draw_letters(line, (150, 200 + 22 * n), 15)
        for n, line in enumerate(("Mustermann, Erika", "12.03.1961 F", "ID 0045121"))
    )
    assert isinstance(ink, np.ndarray)
    picture = lay_over(draw_tissue(4), ink, (220, 220, 220))
    assert share_covered(picture, ink) == 1


@pytest.mark.parametrize("size", [14, 18, 24])
@pytest.mark.parametrize(
    ("bar", "colour"),
    [
        ((0, 0, 0), (255, 255, 255)),
        ((20, 30, 90), (240, 230, 90)),
        ((235, 235, 235), (10, 10, 10)),
        ((255, 255, 255), (0, 0, 120)),
        ((110, 110, 120), (255, 255, 255)),
    ],
    ids=["white on black", "yellow on blue", "black on light", "blue on white", "white on grey"],
)
def test_header_is_covered_light_or_dark(
    bar: tuple[int, int, int], colour: tuple[int, int, int], size: int
) -> None:
    picture = draw_tissue(5)
    picture[:50] = bar
    ink = draw_letters("Li Na  12.03.1961", (10, 10), size)
    picture = lay_over(picture, ink, colour)
    assert share_covered(picture, ink) == 1


def test_outlined_letters_are_covered_on_bright_tissue() -> None:
    ink = draw_letters("ESQUERDA QSE", (200, 60), 15, BOLD)
    outline = cv2.dilate(ink, np.ones((3, 3)))
    picture = lay_over(draw_tissue(6, brightest=250, spread=2.0), outline, (0, 0, 0))
    picture = lay_over(picture, ink, (255, 255, 255))
    assert share_covered(picture, ink) == 1


@pytest.mark.parametrize("spread", [1.5, 2.0, 3.0, 4.5])
@pytest.mark.parametrize("brightest", [120, 250])
def test_tissue_stays(spread: float, brightest: int) -> None:
    for seed in range(4):
        picture = draw_tissue(seed, brightest, spread)
        for shown in (picture, resize_image(picture, 224)):
            assert (cover_text(shown) == shown).mean() >= 0.97


def test_coarse_bright_tissue_stays_under_a_light_header() -> None:
    for seed in range(3):
        contrasted = 2.5 * draw_tissue(seed, spread=1.8) - 60
        picture = np.clip(contrasted, 0, 255).astype(np.uint8)
        picture[:40] = 235
        for shown in (picture, resize_image(picture, 224)):
            assert (cover_text(shown) == shown).mean() >= 0.97


def test_the_cover_is_not_much_larger_than_the_text() -> None:
    ink = draw_letters("LT AXILLA", (200, 300), 16)
    picture = lay_over(draw_tissue(7), ink, (230, 230, 230))
    rows, columns = np.nonzero(ink > 0.5)
    text = (np.ptp(rows) + 1) * (np.ptp(columns) + 1)
    covered = (cover_text(picture) != picture).any(axis=-1).sum()
    assert text <= covered <= 3 * text


def test_a_dotted_line_is_no_text() -> None:
    picture = draw_tissue(8, brightest=100)
    for n in range(30):
        picture[200 + n // 8 : 203 + n // 8, 150 + 6 * n : 153 + 6 * n] = 230
    assert (cover_text(picture) == picture).all()


def test_a_lesion_between_callipers_stays_a_shape() -> None:
    picture = draw_tissue(10, brightest=220)
    lesion = np.zeros((470, 560), dtype=np.uint8)
    cv2.ellipse(lesion, (280, 200), (40, 28), 0, 0, 360, 1, -1)
    picture[lesion > 0] = 25
    for x, y in ((240, 200), (320, 200), (280, 172), (280, 228)):
        cv2.drawMarker(picture, (x, y), (235, 235, 235), cv2.MARKER_CROSS, 19, 2)
    ink = draw_letters("RT 12 mm", (225, 190), 20)
    picture = lay_over(picture, ink, (235, 235, 235))
    assert share_covered(picture, ink) == 1
    covered = cover_text(picture)[..., 0].astype(int)
    around = (cv2.dilate(lesion, np.ones((31, 31))) > 0) & (lesion == 0)
    # Of smooth pixels three quarters are on the right side.
    middle = (25 + np.median(picture[around])) / 2
    assert (covered[lesion > 0] < middle).mean() > 0.75
    assert (covered[around] > middle).mean() > 0.75


def test_a_frame_says_where_a_picture_was_smoothed() -> None:
    picture = lay_over(draw_tissue(9), draw_letters("NAME", (250, 150), 16), (255, 255, 255))
    framed, plain = cover_text(picture), cover_text(picture, framed=False)
    rows, columns = np.nonzero((framed != plain).any(axis=2))
    assert (framed[rows, columns] == FRAME_GREY).all()
    boxes = find_text_boxes(picture)
    assert rows.min() == min(box.top for box in boxes)
    assert rows.max() == max(box.bottom for box in boxes) - 1
    assert columns.min() == min(box.left for box in boxes)
    assert columns.max() == max(box.right for box in boxes) - 1


def test_the_picture_itself_does_not_change() -> None:
    picture = lay_over(draw_tissue(9), draw_letters("NAME", (50, 50), 16), (255, 255, 255))
    before = picture.copy()
    covered = cover_text(picture)
    assert covered.shape == picture.shape
    assert covered.dtype == np.uint8
    assert (picture == before).all()
    assert (covered != before).any()


@pytest.mark.parametrize("shape", [(1, 1, 3), (8, 8, 3), (3, 400, 3)])
def test_pictures_without_anything_have_no_text(shape: tuple[int, int, int]) -> None:
    for grey in (0, 90, 255):
        assert find_text_boxes(np.full(shape, grey, dtype=np.uint8)) == []
