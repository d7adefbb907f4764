"""The demo's two sites: what makes real sets hard, drawn."""

import csv
from pathlib import Path
from typing import NamedTuple

import cv2
import numpy as np
from PIL import Image

from .scans import Scan, Scanner, simulate_case, simulate_scan

COUNTS = {"benign": 120, "malignant": 75, "normal": 60}
SECOND_SITE = "_second_site"
_BENIGN, _MALIGNANT = "benign", "malignant"
# Mean and deviation of how malignant lesions look: some benign ones look malignant, and the
# reverse. Lesions of the second site are harder to read.
_SUSPICION = {_BENIGN: (0.25, 0.2), _MALIGNANT: (0.75, 0.2)}
_SECOND_SUSPICION = {_BENIGN: (0.3, 0.2), _MALIGNANT: (0.65, 0.2)}

_FIRST_SCANNER = Scanner((140, 210), (180, 290), (-6, 6), (46, 62), (0.8, 1.6))
_SECOND_SCANNERS = {
    "Demo S": Scanner((210, 260), (190, 230), (0, 8), (42, 50), (1.2, 2.6), 6, 18),
    "Demo T": Scanner((190, 240), (200, 250), (-8, 0), (60, 70), (1.0, 2.0), 10, 12),
}
_SECOND_PATIENTS = {_BENIGN: 24, _MALIGNANT: 14}
_VIEWS = ("left", "right")

_CALLIPERS = {_BENIGN: 0.25, _MALIGNANT: 0.4}  # share of lesions that are measured
_TEXT = 0.2  # share of images with burned-in text
_WORDS = ("RT AXILLA", "LT BREAST", "RT 10 H", "LT 2 H", "RT UOQ")
_INK = 235
_ARM = 5  # pixels of each arm of a cross
_DOTS = 6  # pixels from dot to dot of the line between two crosses


class _Copy(NamedTuple):
    """An image that shows the frame of another one: the class and number of both, and how."""

    label: str
    number: int
    of_label: str
    of_number: int
    change: str


_COPIES = (
    _Copy(_BENIGN, 115, _BENIGN, 5, "same file"),
    _Copy(_BENIGN, 116, _BENIGN, 8, "annotated"),
    _Copy(_BENIGN, 117, _BENIGN, 8, "cropped"),
    _Copy(_BENIGN, 118, _BENIGN, 21, "cropped"),
    _Copy(_BENIGN, 119, _BENIGN, 34, "enlarged"),
    _Copy(_BENIGN, 120, _MALIGNANT, 30, "annotated"),
    _Copy(_MALIGNANT, 73, _MALIGNANT, 3, "annotated"),
    _Copy(_MALIGNANT, 74, _MALIGNANT, 11, "cropped"),
    _Copy(_MALIGNANT, 75, _MALIGNANT, 17, "enlarged"),
    _Copy("normal", 60, "normal", 9, "cropped"),
)


def write_demo(folder: Path, seed: int) -> dict[Path, int]:
    """Write the images of both sites; return the number of images by folder.

    The first site is in BUSI's layout and lies in `folder`, the second in the folder beside it
    whose name ends in `_second_site`, with a table `images.csv`. The same seed gives the same
    files.
    """
    second = folder.with_name(folder.name + SECOND_SITE)
    return {folder: _write_first_site(folder, seed), second: _write_second_site(second, seed)}


def write_synthetic_set(folder: Path, counts: dict[str, int], seed: int) -> None:
    """Write `<class>/<class> (n).png` with `<class> (n)_mask.png` beside it, as BUSI has it.

    Each class looks as it is said to; nothing is written into the images. The same counts and seed
    give the same files. Masks of `normal` are empty.
    """
    for number, (label, count) in enumerate(counts.items()):
        for n in range(1, count + 1):
            rng = np.random.default_rng([seed, number, n])
            height, width = int(rng.integers(150, 190)), int(rng.integers(190, 260))
            _save_in_busi_layout(simulate_scan(label, height, width, rng), folder, label, n)


def _write_first_site(folder: Path, seed: int) -> int:
    """Write `COUNTS` images; some are copies of others, some are annotated."""
    copies = {(own.label, own.number): own for own in _COPIES}
    drawn: dict[tuple[str, int], Scan] = {}
    for number, (label, count) in enumerate(COUNTS.items()):
        for n in range(1, count + 1):
            if (label, n) in copies:
                continue
            rng = np.random.default_rng([seed, number, n])
            scan = simulate_case(_draw_suspicion(_SUSPICION, label, rng), _FIRST_SCANNER, rng)
            drawn[label, n] = _annotate(scan, label, rng)
    for place, own in enumerate(_COPIES):
        rng = np.random.default_rng([seed, len(COUNTS), place])
        drawn[own.label, own.number] = _change(drawn[own.of_label, own.of_number], own.change, rng)
    for (label, n), scan in drawn.items():
        _save_in_busi_layout(scan, folder, label, n)
    return len(drawn)


def _write_second_site(folder: Path, seed: int) -> int:
    """Write two images of each patient, from two other scanners, and the table of both."""
    for name in ("images", "masks"):
        (folder / name).mkdir(parents=True, exist_ok=True)
    rows = []
    patients = [label for label, count in _SECOND_PATIENTS.items() for _ in range(count)]
    for patient, label in enumerate(patients, start=1):
        rng = np.random.default_rng([seed, len(COUNTS) + 1, patient])
        suspicion = _draw_suspicion(_SECOND_SUSPICION, label, rng)
        device = str(rng.choice(list(_SECOND_SCANNERS)))
        about = {
            "label": label,
            "patient": f"P{patient:02d}",
            "device": device,
            "birads": _read_birads(suspicion, rng),
            "age": int(np.clip(rng.normal(46 if label == _BENIGN else 58, 11), 22, 86)),
        }
        for view in _VIEWS:
            name = f"{about['patient']}_{view}.png"
            scan = simulate_case(suspicion, _SECOND_SCANNERS[device], rng)
            scan = _annotate(scan, label, rng)
            _draw_depth_scale(scan.image)
            Image.fromarray(scan.image).save(folder / "images" / name)
            Image.fromarray(scan.mask).save(folder / "masks" / name)
            rows.append({"image": f"images/{name}", "mask": f"masks/{name}", "view": view} | about)
    with (folder / "images.csv").open("w", newline="", encoding="utf-8") as file:
        table = csv.DictWriter(file, list(rows[0]))
        table.writeheader()
        table.writerows(rows)
    return len(rows)


def _draw_suspicion(
    of_class: dict[str, tuple[float, float]], label: str, rng: np.random.Generator
) -> float | None:
    """Return how malignant a lesion of this class looks, 0 to 1; None where there is none."""
    return float(np.clip(rng.normal(*of_class[label]), 0, 1)) if label in of_class else None


def _read_birads(suspicion: float | None, rng: np.random.Generator) -> int:
    """Return the category that a reader might give, 2 to 5."""
    seen = (suspicion or 0) + rng.normal(0, 0.1)
    return int(2 + np.searchsorted([0.15, 0.45, 0.75], seen))


def _save_in_busi_layout(scan: Scan, folder: Path, label: str, n: int) -> None:
    (folder / label).mkdir(parents=True, exist_ok=True)
    Image.fromarray(scan.image).save(folder / label / f"{label} ({n}).png")
    Image.fromarray(scan.mask).save(folder / label / f"{label} ({n})_mask.png")


def _change(scan: Scan, change: str, rng: np.random.Generator) -> Scan:
    """Return the same frame as it might have been exported once more."""
    height, width = scan.image.shape
    if change == "annotated":
        image = _measure(scan.image, scan.mask) if scan.mask.any() else scan.image
        return Scan(_write_text(image, rng), scan.mask)
    if change in ("cropped", "enlarged"):
        top, left = (int(rng.uniform(0.02, 0.05) * side) for side in (height, width))
        inside = np.s_[top : height - top, left : width - left]
        scan = Scan(scan.image[inside], scan.mask[inside])
    if change == "enlarged":
        size = (round(width * 1.2), round(height * 1.2))
        mask = cv2.resize(scan.mask.astype(np.uint8), size, interpolation=cv2.INTER_NEAREST)
        return Scan(cv2.resize(scan.image, size, interpolation=cv2.INTER_CUBIC), mask.astype(bool))
    return scan


def _annotate(scan: Scan, label: str, rng: np.random.Generator) -> Scan:
    """Return the scan, now and then with callipers at its lesion and with text."""
    image = scan.image
    measured, labelled = rng.random(2)
    if scan.mask.any() and measured < _CALLIPERS[label]:
        image = _measure(image, scan.mask)
    return Scan(_write_text(image, rng) if labelled < _TEXT else image, scan.mask)


def _measure(image: np.ndarray, mask: np.ndarray) -> np.ndarray:
    """Return the image with crosses at the ends of the lesion's axes, and dotted lines between."""
    drawn = image.copy()
    rows, columns = np.nonzero(mask)
    middle = round(columns.mean()), round(rows.mean())
    edge = _ARM + 1
    for start, end in (
        ((columns.min(), middle[1]), (columns.max(), middle[1])),
        ((middle[0], rows.min()), (middle[0], rows.max())),
    ):
        limits = np.subtract(image.shape[::-1], 1 + edge)
        first, last = (np.clip(point, edge, limits) for point in (start, end))
        length = int(np.abs(last - first).max())
        for step in range(2 * _ARM, length - 2 * _ARM + 1, _DOTS):
            x, y = np.round(first + (last - first) * step / length).astype(int)
            drawn[y : y + 2, x : x + 2] = _INK
        for x, y in (first, last):
            drawn[y - _ARM : y + _ARM + 1, x : x + 2] = _INK
            drawn[y : y + 2, x - _ARM : x + _ARM + 1] = _INK
    return drawn


def _write_text(image: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Return the image with one of some words at the lower edge."""
    place = int(rng.integers(6, 40)), image.shape[0] - int(rng.integers(6, 16))
    words = str(rng.choice(_WORDS))
    return cv2.putText(image.copy(), words, place, cv2.FONT_HERSHEY_SIMPLEX, 0.4, _INK)


def _draw_depth_scale(image: np.ndarray) -> None:
    """Draw the ticks of a depth scale into the right border."""
    for place, row in enumerate(range(10, image.shape[0] - 4, 12)):
        image[row, -4 - (4 if place % 5 == 0 else 1) : -4] = _INK
