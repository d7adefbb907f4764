"""DICOM files for tests: any pixels, any transfer syntax, with names that must not get out."""

import io
from collections.abc import Sequence
from typing import Any

import imagecodecs
import numpy as np
from PIL import Image
from pydicom import Dataset, FileMetaDataset
from pydicom.encaps import encapsulate
from pydicom.uid import (
    ExplicitVRLittleEndian,
    JPEG2000Lossless,
    JPEGBaseline8Bit,
    JPEGLosslessSV1,
    JPEGLSLossless,
    RLELossless,
    UltrasoundMultiFrameImageStorage,
)

from tests.factories import encode_image

# What stands in every file, and may not stand in anything that is made of it.
SECRETS = ("DOE", "JANE", "PID-4711", "19690702", "ACC-0815", "HOUSE", "ELMSTREET")


def make_dicom(
    frames: Sequence[np.ndarray], interpretation: str = "MONOCHROME2", **elements: Any
) -> Dataset:
    """Return an uncompressed file of frames: (h, w) or (h, w, 3), of 8 or 16 bits.

    Args:
        frames: stored values.
        interpretation: PhotometricInterpretation.
        elements: {keyword: value} that differ; None takes an element out.
    """
    first = frames[0]
    dataset = Dataset()
    dataset.file_meta = FileMetaDataset()
    dataset.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
    dataset.file_meta.MediaStorageSOPClassUID = UltrasoundMultiFrameImageStorage
    dataset.SOPClassUID = UltrasoundMultiFrameImageStorage
    dataset.PatientName = "DOE^JANE"
    dataset.PatientID = "PID-4711"
    dataset.PatientBirthDate = "19690702"
    dataset.PatientAddress = "ELMSTREET 7"
    dataset.AccessionNumber = "ACC-0815"
    dataset.ReferringPhysicianName = "HOUSE^GREGORY"
    dataset.SOPInstanceUID = "1.2.826.0.1.3680043.8.498.1"
    dataset.Rows, dataset.Columns = first.shape[:2]
    dataset.SamplesPerPixel = 1 if first.ndim == 2 else 3
    dataset.PhotometricInterpretation = interpretation
    if first.ndim == 3:
        dataset.PlanarConfiguration = 0
    dataset.BitsAllocated = 8 * first.itemsize
    dataset.BitsStored = dataset.BitsAllocated
    dataset.PixelRepresentation = int(first.dtype.kind == "i")
    if len(frames) > 1:
        dataset.NumberOfFrames = len(frames)
    set_pixels(dataset, b"".join(frame.tobytes() for frame in frames))
    for keyword, value in elements.items():
        if value is None:
            delattr(dataset, keyword)
        else:
            setattr(dataset, keyword, value)
    dataset.HighBit = dataset.BitsStored - 1
    dataset.file_meta.MediaStorageSOPInstanceUID = dataset.get("SOPInstanceUID") or "1.2"
    return dataset


def set_pixels(dataset: Dataset, content: bytes) -> None:
    """Set uncompressed pixels."""
    dataset.PixelData = content + b"\0" * (len(content) % 2)
    dataset["PixelData"].VR = "OW"


def compress(dataset: Dataset, syntax: str, streams: Sequence[bytes] | None = None) -> Dataset:
    """Compress the frames of a file; lossy JPEG with Pillow, as an encoder that writes JFIF.

    Args:
        dataset: from make_dicom; changed.
        syntax: UID of the transfer syntax.
        streams: the compressed frames, where they are not to be made here.
    """
    encoders = {
        RLELossless: None,
        JPEGBaseline8Bit: lambda a: encode_image(Image.fromarray(a), "JPEG", quality=95),
        JPEGLosslessSV1: lambda a: imagecodecs.jpeg8_encode(a, lossless=True),
        JPEGLSLossless: imagecodecs.jpegls_encode,
        JPEG2000Lossless: lambda a: imagecodecs.jpeg2k_encode(
            a, level=0, codecformat="j2k", reversible=True
        ),
    }
    if syntax == RLELossless and streams is None:
        dataset.compress(RLELossless, generate_instance_uid=False)
        return dataset
    if streams is None:
        frames = dataset.pixel_array
        if "NumberOfFrames" not in dataset:
            frames = frames[None]
        streams = [encoders[syntax](np.ascontiguousarray(frame)) for frame in frames]
    dataset.PixelData = encapsulate(streams)
    dataset["PixelData"].VR = "OB"
    dataset["PixelData"].is_undefined_length = True
    dataset.file_meta.TransferSyntaxUID = syntax
    return dataset


def make_region(
    left: int, top: int, right: int, bottom: int, delta_cm: float = 0.01, **elements: Any
) -> Dataset:
    """Return an item of SequenceOfUltrasoundRegions; `right` and `bottom` lie within it."""
    region = Dataset()
    region.RegionSpatialFormat = region.RegionDataType = 1
    region.RegionLocationMinX0, region.RegionLocationMinY0 = left, top
    region.RegionLocationMaxX1, region.RegionLocationMaxY1 = right, bottom
    region.PhysicalUnitsXDirection = region.PhysicalUnitsYDirection = 3
    region.PhysicalDeltaX = region.PhysicalDeltaY = delta_cm
    for keyword, value in elements.items():
        setattr(region, keyword, value)
    return region


def write_dicom(dataset: Dataset) -> bytes:
    """Return the content of the file."""
    buffer = io.BytesIO()
    dataset.save_as(buffer, enforce_file_format=True)
    return buffer.getvalue()
