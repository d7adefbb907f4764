"""A batch augmented at once is what each image augmented alone is."""

import numpy as np
import pytest

from busi_pipeline.imaging.affine import AffineTransform, apply_affine, invert_affine
from busi_pipeline.learning.batch_affine import apply_affine_batch
from busi_pipeline.synthetic import simulate_scan

TRANSFORMS = [
    AffineTransform(),
    AffineTransform(12.0, 1.1, True, False, 0.04, -0.03, 3.0, 1.08),
    AffineTransform(-15.0, 0.9, False, True, -0.05, 0.02, -5.0, 0.91),
    AffineTransform(zoom=1.3, brightness=1.9),
]


@pytest.mark.parametrize("size", [(40, 40), (33, 48)])
def test_a_batch_is_augmented_as_one_image_is(size: tuple[int, int]) -> None:
    scans = [simulate_scan("benign", *size, np.random.default_rng(i)).image for i in range(4)]
    images = np.stack([np.stack([scan, scan // 2, 255 - scan], axis=-1) for scan in scans])
    batch = np.asarray(
        apply_affine_batch(
            images,
            np.array([invert_affine(transform, *size) for transform in TRANSFORMS]),
            np.array([transform.brightness for transform in TRANSFORMS]),
        )
    )
    assert batch.dtype == np.uint8
    assert batch.shape == images.shape
    for ours, image, transform in zip(batch.astype(int), images, TRANSFORMS, strict=True):
        apart = np.abs(ours - apply_affine(image, transform))
        assert np.quantile(apart, 0.9) <= 2, transform
        assert apart.mean() < 1, transform
    np.testing.assert_array_equal(batch[0], images[0])


def test_brightness_stays_in_range() -> None:
    images = np.full((3, 6, 6, 3), 200, dtype=np.uint8)
    inverses = np.tile([1.0, 0, 0, 0, 1, 0], (3, 1))
    batch = np.asarray(apply_affine_batch(images, inverses, np.array([0.5, 1.0, 2.0])))
    assert batch[:, 0, 0, 0].tolist() == [100, 200, 255]
