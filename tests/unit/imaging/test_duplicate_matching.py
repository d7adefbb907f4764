"""A glance lets every copy through, and keeps most other images from being aligned."""

import cv2
import numpy as np
import pytest

from busi_pipeline.imaging.duplicate_matching import glance_at, may_be_one_frame
from busi_pipeline.synthetic import simulate_scan

SCANS = [
    np.repeat(
        simulate_scan("malignant", 400, 520, np.random.default_rng(seed)).image[..., None], 3, 2
    )
    for seed in range(6)
]
COPIES = {
    "cropped": lambda scan: scan[20:-30, 40:-10],
    "enlarged": lambda scan: cv2.resize(scan, None, fx=1.4, fy=1.4),
    "reduced": lambda scan: cv2.resize(scan, None, fx=0.6, fy=0.6, interpolation=cv2.INTER_AREA),
    "brighter": lambda scan: np.clip(scan * 1.2 + 10, 0, 255).astype(np.uint8),
    "annotated": lambda scan: cv2.rectangle(scan.copy(), (0, 360), (200, 399), (255,) * 3, -1),
}


@pytest.mark.parametrize("name", COPIES)
def test_a_copy_is_let_through(name: str) -> None:
    for scan in SCANS:
        copy = np.ascontiguousarray(COPIES[name](scan))
        assert may_be_one_frame(glance_at(scan), glance_at(copy))
        assert may_be_one_frame(glance_at(copy), glance_at(scan))


def test_other_scans_are_not() -> None:
    glances = [glance_at(scan) for scan in SCANS]
    pairs = [(a, b) for a in range(6) for b in range(6) if a != b]
    let_through = [may_be_one_frame(glances[a], glances[b]) for a, b in pairs]
    assert np.mean(let_through) < 0.1


def test_a_picture_without_features_is_like_none() -> None:
    flat = np.full((300, 300, 3), 90, dtype=np.uint8)
    assert not may_be_one_frame(glance_at(flat), glance_at(SCANS[0]))
