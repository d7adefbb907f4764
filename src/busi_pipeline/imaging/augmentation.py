"""Augment one image as a row of the augmentation plan says: move it, and vary the scanner."""

from busi_pipeline.imaging.affine import AffineTransform, apply_affine
from busi_pipeline.imaging.decoding import UInt8Array
from busi_pipeline.imaging.scanner_variation import vary_scanner


def augment_image(pixels: UInt8Array, transform: AffineTransform, scanner_seed: int) -> UInt8Array:
    """Return uint8 (h, w, 3): moved by the transform, then as another scanner might show it.

    Args:
        pixels: uint8 (h, w, 3); grey where the scanner varies.
        transform: see `affine.apply_affine`.
        scanner_seed: see `scanner_variation.vary_scanner`.
    """
    return vary_scanner(apply_affine(pixels, transform), scanner_seed)
