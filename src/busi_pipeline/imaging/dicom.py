"""DICOM files: a header without names, and each frame as uint8 RGB.

pydicom parses the files and decodes native and RLE pixels, imagecodecs decodes JPEG, JPEG-LS and
JPEG 2000. Not used are GDCM and the other decoders that end the whole process on damaged frames.

What is done with the pixels:

- Grey goes through the display pipeline of the standard (PS3.4, N.2): rescale or modality LUT, the
  first window or VOI LUT of the file, inversion of MONOCHROME1. Without a window the whole range of
  `BitsStored` becomes 0 to 255, signed values included, so that 12 bits are not black. Overlays and
  presentation states are not drawn.
- Colour has 8 bits a channel. PhotometricInterpretation says how it is coded, unless a JPEG stream
  says so itself (a JFIF or Adobe marker, channels named R, G, B).
- A picture is cut to its ultrasound region: the largest one that is two-dimensional tissue.

No message quotes text of a file, since any of it can be a patient's.
"""

import io
import logging
import math
import struct
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, BinaryIO, NamedTuple

import numpy as np

from busi_pipeline.errors import BadInputError

from .decoding import (
    JPEG_FRAME_HEADERS,
    MAX_PIXELS,
    UInt8Array,
    UnusableImageError,
    check_jpeg,
    check_size,
    find_jpeg_damage,
    list_jpeg_segments,
)

if TYPE_CHECKING:
    from pydicom import Dataset
    from pydicom.uid import UID

DICOM_SUFFIXES = (".dcm", ".dicom")
START_LENGTH = 132
"""Bytes at the start of a file that `is_dicom` needs."""

_NATIVE = ("1.2.840.10008.1.2", "1.2.840.10008.1.2.1")
_RLE = ("1.2.840.10008.1.2.5",)
_JPEG = tuple(f"1.2.840.10008.1.2.4.{number}" for number in (50, 51, 57, 70))
_JPEG_LS = ("1.2.840.10008.1.2.4.80", "1.2.840.10008.1.2.4.81")
_JPEG_2000 = ("1.2.840.10008.1.2.4.90", "1.2.840.10008.1.2.4.91")
TRANSFER_SYNTAXES = (*_NATIVE, *_RLE, *_JPEG, *_JPEG_LS, *_JPEG_2000)
"""UIDs of those that are read."""
_ALLOWED = "uncompressed little endian, RLE, JPEG, lossless JPEG, JPEG-LS and JPEG 2000 are read"

_GREY = ("MONOCHROME1", "MONOCHROME2")
_ONE_CHANNEL = (*_GREY, "PALETTE COLOR")
_YBR = ("YBR_FULL", "YBR_FULL_422")
_THREE_CHANNELS = ("RGB", *_YBR)
_OF_JPEG_2000 = ("YBR_ICT", "YBR_RCT")  # which it turns into RGB itself
# By rising precedence.
_LUTS = ("ModalityLUTSequence", "VOILUTSequence")

_IDENTIFIERS = (
    *("PatientName", "PatientID", "OtherPatientIDs", "OtherPatientNames", "PatientBirthDate"),
    *("PatientAddress", "AccessionNumber", "StudyID", "ReferringPhysicianName"),
)
# Beside these only the elements of pixels (group 0028) are read: any other can be large.
_ELEMENTS = (
    *_IDENTIFIERS,
    *("SOPInstanceUID", "Manufacturer", "ManufacturerModelName", "PatientAge", "ViewPosition"),
    *("ImageLaterality", "Laterality", "SequenceOfUltrasoundRegions"),
    *("ExtendedOffsetTable", "ExtendedOffsetTableLengths"),
)
_PIXEL_DATA = 0x7FE00010
_MOST_FRAMES = 10_000
# Of sequences, in the first megabytes: pydicom keeps two kilobytes for an item of eight bytes.
_MOST_ITEMS = 50_000
ITEM = b"\xfe\xff\x00\xe0"
_LATERALITY = {"L": "left", "R": "right", "B": "both"}
_AGE_IN_YEARS = {"Y": 1.0, "M": 12.0, "W": 52.18, "D": 365.25}
# Ages above it are an identifier by the rules of HIPAA, so they are one group.
_HIGHEST_AGE = 90
_CENTIMETRE = 3

_LOSSLESS_JPEG = 0xC3
# Of a JPEG 2000 stream: OpenJPEG keeps a kilobyte or more for each, however small it is.
_MOST_TILES = 4096
# Pixels converted at once, for the sake of memory.
_STRIP = 1_000_000


class Region(NamedTuple):
    """Part of a picture, in pixels; `right` and `bottom` are the first outside it."""

    left: int
    top: int
    right: int
    bottom: int


@dataclass(frozen=True)
class DicomHeader:
    """What a DICOM header says of its picture. Texts are "" where it says nothing.

    Attributes:
        sop_instance_uid: of the file.
        patient_id: as the header has it; it must not get out.
        identifiers: further texts of three or more characters that must not get out, parts of the
            patient's name among them.
        device: manufacturer and model.
        age: in whole years; "90" is 90 or more.
        view: `left`, `right` or `both`, and the view position.
        laterality: `left`, `right`, `both` or "".
        pixel_spacing_mm: height and width of a pixel in mm: one number where they are the same,
            else `0.08 x 0.1`.
        spacing: the same as numbers, None where the header does not say.
        frames: number of frames.
        rows: height in pixels.
        columns: width in pixels.
        region: where the ultrasound picture lies, None where the header does not say.
        regions: number of places where one does, 0 where the header does not say.
    """

    sop_instance_uid: str
    patient_id: str
    identifiers: tuple[str, ...]
    device: str
    age: str
    view: str
    laterality: str
    pixel_spacing_mm: str
    spacing: tuple[float, float] | None
    frames: int
    rows: int
    columns: int
    region: Region | None
    regions: int


def is_dicom(content_start: bytes) -> bool:
    """Return whether a file of these first START_LENGTH bytes is DICOM."""
    return content_start[128:START_LENGTH] == b"DICM"


def read_header(source: bytes | BinaryIO) -> DicomHeader:
    """Return what the header says; of an open file the pixels are not read.

    Raises UnusableImageError where the file holds no picture or cannot be read, BadInputError where
    pydicom is not installed.
    """
    with _refusing("unreadable DICOM header"):
        return _describe(_parse(source).dataset)


def select_frames(frames: str | int, n: int) -> list[int]:
    """Return which of `n` frames are used, counted from 1.

    Args:
        frames: `first`, `middle`, `all`, `every <k>`, or the number of one (see DicomSettings).
        n: number of frames in the file.

    Raises UnusableImageError where the file has no frame of that number.
    """
    chosen = {"first": [1], "middle": [(n + 1) // 2]}.get(str(frames))
    if chosen is not None:
        return chosen
    words = str(frames).split()
    if words[0] in ("all", "every"):
        return list(range(1, n + 1, int(words[1]) if len(words) > 1 else 1))
    if int(frames) > n:
        raise UnusableImageError(
            f"{n} frames, so there is no frame {frames} (ingestion.dicom.frames)"
        )
    return [int(frames)]


def decode_frame(
    source: bytes | BinaryIO, frame: int, crop_to_region: bool, max_pixels: int = MAX_PIXELS
) -> UInt8Array:
    """Return one frame as uint8 (height, width, 3), RGB, 0-255; no other frame is decoded.

    Args:
        source: content of the file, or the open file.
        frame: counted from 1.
        crop_to_region: cut to the ultrasound region, where the header names one.
        max_pixels: height times width of the largest frame that is decoded.

    Raises UnusableImageError where that is not possible, BadInputError where pydicom is not
    installed.
    """
    with _refusing("unreadable DICOM header"):
        parsed = _parse(source)
        header = _describe(parsed.dataset)
        check_size(header.columns, header.rows, max_pixels)
        picture = _check_picture(parsed, header)
    with _refusing("unreadable DICOM pixels"):
        stored = _decode(parsed, picture, _read_frame(parsed, picture, frame))
        pixels = _to_rgb(stored, parsed.dataset, picture)
    if not crop_to_region or header.region is None:
        return pixels
    left, top, right, bottom = header.region
    if left >= right or top >= bottom:
        raise UnusableImageError(
            "the ultrasound region of the header lies outside the picture "
            "(ingestion.dicom.crop_to_region: false takes all of it)"
        )
    return np.ascontiguousarray(pixels[top:bottom, left:right])


# Header


class _Parsed(NamedTuple):
    """The elements before the pixels, and the file at the element of the pixels."""

    dataset: "Dataset"
    syntax: "UID"
    file: BinaryIO


@contextmanager
def _refusing(what: str) -> Iterator[None]:
    """Turn whatever a decoder raises into UnusableImageError, without its text."""
    try:
        yield
    except (UnusableImageError, BadInputError):
        raise
    except Exception as error:
        raise UnusableImageError(f"{what} ({type(error).__name__})") from None


def _parse(source: bytes | BinaryIO) -> _Parsed:
    try:
        import imagecodecs  # noqa: F401  # asked for here, so that ingestion says so at once
        from pydicom.datadict import DicomDictionary, tag_for_keyword
        from pydicom.filereader import read_dataset
        from pydicom.uid import UID
    except ImportError:
        raise BadInputError(
            "a DICOM file is among the images, but what reads DICOM is not installed: "
            "pip install 'busi_pipeline[dicom]'"
        ) from None
    # Both quote values, which can be a patient's.
    logging.getLogger("pydicom").setLevel(logging.CRITICAL + 1)
    warnings.filterwarnings("ignore", module="pydicom")

    file = io.BytesIO(source) if isinstance(source, bytes) else source
    file.seek(0)
    start = file.read(4 << 20)
    if not is_dicom(start):
        raise UnusableImageError("no DICOM file: the mark DICM at byte 128 is missing")
    if start.count(ITEM) > _MOST_ITEMS:
        raise UnusableImageError(f"more than {_MOST_ITEMS} items in one DICOM header")
    file.seek(START_LENGTH)
    meta = read_dataset(file, False, True, stop_when=lambda tag, *_: tag >> 16 != 2)
    syntax = UID(str(meta.get("TransferSyntaxUID", "")))
    if syntax not in TRANSFER_SYNTAXES:
        known = syntax.name if syntax.type == "Transfer Syntax" else "unknown"
        raise UnusableImageError(f"transfer syntax {known}: {_ALLOWED}")
    pixel_elements = [tag for tag in DicomDictionary if tag >> 16 == 0x0028]
    dataset = read_dataset(
        file,
        syntax.is_implicit_VR,
        True,
        stop_when=lambda tag, *_: tag >= _PIXEL_DATA - 8,  # the offset tables come before
        specific_tags=[*pixel_elements, *filter(None, map(tag_for_keyword, _ELEMENTS))],
    )
    return _Parsed(dataset, syntax, file)


def _describe(dataset: "Dataset") -> DicomHeader:
    rows, columns = _get_number(dataset, "Rows"), _get_number(dataset, "Columns")
    uid = _get_text(dataset, "SOPInstanceUID")
    if not rows or not columns:
        raise UnusableImageError("no picture in this DICOM file: a report, an index or the like")
    if not uid:
        raise UnusableImageError("the DICOM header has no SOPInstanceUID")
    frames = max(1, _get_number(dataset, "NumberOfFrames", 1))
    if frames > _MOST_FRAMES:
        raise UnusableImageError(f"{frames} frames; at most {_MOST_FRAMES} are read")
    identifiers = _list_identifiers(dataset)
    maker, model = _get_text(dataset, "Manufacturer"), _get_text(dataset, "ManufacturerModelName")
    device = " ".join(f"{maker} {model}".split())
    regions = _list_regions(dataset)
    region = max(regions, key=_measure_area, default=None)
    spacing = _read_spacing(dataset, region)
    return DicomHeader(
        sop_instance_uid=uid,
        patient_id=_get_text(dataset, "PatientID"),
        identifiers=identifiers,
        device="" if any(text in device.casefold() for text in identifiers) else device,
        age=_format_age(_get_text(dataset, "PatientAge")),
        view=_format_view(dataset),
        laterality=_read_laterality(dataset),
        pixel_spacing_mm="" if spacing is None else _format_spacing(*spacing),
        spacing=spacing,
        frames=frames,
        rows=rows,
        columns=columns,
        region=None if region is None else _place_region(region, rows, columns),
        regions=len({_place_region(item, rows, columns) for item in regions}),
    )


def _get_text(dataset: "Dataset", keyword: str) -> str:
    value = dataset.get(keyword)
    return "" if value is None else str(value).strip(" \0")


def _get_number(dataset: "Dataset", keyword: str, default: int = 0) -> int:
    value = dataset.get(keyword)
    return default if value is None or value == "" else int(value)


def _list_identifiers(dataset: "Dataset") -> tuple[str, ...]:
    """Return texts and words that are the patient's, in lower case."""
    texts = [_get_text(dataset, keyword).casefold() for keyword in _IDENTIFIERS]
    words = [word for text in texts for word in text.replace("^", " ").replace("=", " ").split()]
    return tuple(sorted({text for text in texts + words if len(text) > 2}))


def _format_age(age: str) -> str:
    """Return `034Y` as `34`, `018M` as `1`."""
    number, unit = age[:-1], age[-1:]
    if not number.isdecimal() or unit not in _AGE_IN_YEARS:
        return ""
    return str(min(_HIGHEST_AGE, int(int(number) / _AGE_IN_YEARS[unit])))


def _read_laterality(dataset: "Dataset") -> str:
    side = _get_text(dataset, "ImageLaterality") or _get_text(dataset, "Laterality")
    return _LATERALITY.get(side, "")


def _format_view(dataset: "Dataset") -> str:
    position = _get_text(dataset, "ViewPosition")
    # A defined term has a few capitals; what is longer is free text.
    is_term = position.isalpha() and position.isupper() and len(position) <= 4
    return " ".join(filter(None, [_read_laterality(dataset), position if is_term else ""]))


def _list_regions(dataset: "Dataset") -> "list[Dataset]":
    """Return the 2D regions of tissue; the first of the largest is the picture."""
    return [
        item
        for item in dataset.get("SequenceOfUltrasoundRegions") or []
        if item.get("RegionSpatialFormat") == 1 and item.get("RegionDataType") == 1
    ]


def _measure_area(region: "Dataset") -> int:
    width = region.RegionLocationMaxX1 - region.RegionLocationMinX0
    height = region.RegionLocationMaxY1 - region.RegionLocationMinY0
    return max(0, width) * max(0, height)


def _place_region(region: "Dataset", rows: int, columns: int) -> Region:
    return Region(
        left=region.RegionLocationMinX0,
        top=region.RegionLocationMinY0,
        right=min(columns, region.RegionLocationMaxX1 + 1),
        bottom=min(rows, region.RegionLocationMaxY1 + 1),
    )


def _read_spacing(dataset: "Dataset", region: "Dataset | None") -> tuple[float, float] | None:
    """Return height and width of a pixel in mm."""
    spacing = [float(value) for value in dataset.get("PixelSpacing") or []]
    if len(spacing) != 2 and region is not None:
        units = {region.get(f"PhysicalUnits{axis}Direction") for axis in "XY"}
        if units == {_CENTIMETRE}:
            spacing = [10 * abs(float(region[f"PhysicalDelta{axis}"].value)) for axis in "YX"]
    if len(spacing) != 2 or not all(math.isfinite(v) and v > 0 for v in spacing):
        return None
    return spacing[0], spacing[1]


def _format_spacing(height: float, width: float) -> str:
    if math.isclose(height, width, rel_tol=0.01):
        return f"{height:.4g}"
    return f"{height:.4g} x {width:.4g}"


# Pixels


class _Picture(NamedTuple):
    """How the pixels are stored, as far as it is allowed."""

    rows: int
    columns: int
    frames: int
    samples: int
    bits_allocated: int
    bits_stored: int
    interpretation: str


def _check_picture(parsed: _Parsed, header: DicomHeader) -> _Picture:
    dataset = parsed.dataset
    samples = _get_number(dataset, "SamplesPerPixel", 1)
    allocated = _get_number(dataset, "BitsAllocated")
    stored = _get_number(dataset, "BitsStored", allocated)
    interpretation = _get_text(dataset, "PhotometricInterpretation")
    of_syntax = _OF_JPEG_2000 if parsed.syntax in _JPEG_2000 else ()
    allowed = {1: _ONE_CHANNEL, 3: (*_THREE_CHANNELS, *of_syntax)}.get(samples, ())
    if interpretation not in allowed:
        raise UnusableImageError(
            f"PhotometricInterpretation of {samples} channels: allowed is "
            f"{', '.join(allowed) or 'none'}"
        )
    if allocated not in (8, 16) or not 1 <= stored <= allocated or (samples == 3 and stored != 8):
        raise UnusableImageError(
            f"{stored} of {allocated} bits in {samples} channels; up to 16 are read of grey, 8 of "
            "each colour"
        )
    if _get_number(dataset, "HighBit", stored - 1) != stored - 1:
        raise UnusableImageError(f"HighBit must be {stored - 1} with {stored} bits")
    return _Picture(
        rows=header.rows,
        columns=header.columns,
        frames=header.frames,
        samples=samples,
        bits_allocated=allocated,
        bits_stored=stored,
        interpretation=interpretation,
    )


def _read_frame(parsed: _Parsed, picture: _Picture, frame: int) -> bytes:
    """Return the bytes of one frame as the file has them."""
    from pydicom.encaps import get_frame

    if not 1 <= frame <= picture.frames:
        raise UnusableImageError(f"{picture.frames} frames, so there is no frame {frame}")
    dataset, syntax, file = parsed
    implicit, _ = dataset.original_encoding  # not always what the transfer syntax says
    start = file.read(8 if implicit else 12)
    if start[:4] != b"\xe0\x7f\x10\x00":
        raise UnusableImageError("no pixel data in the DICOM file")
    length = int.from_bytes(start[-4:], "little")
    if syntax not in _NATIVE:
        offsets = [dataset.get(name) for name in _ELEMENTS[-2:]]
        return get_frame(
            file,
            frame - 1,
            number_of_frames=picture.frames,
            extended_offsets=(offsets[0], offsets[1]) if all(offsets) else None,
        )
    size = picture.rows * picture.columns * picture.samples * picture.bits_allocated // 8
    if picture.interpretation == "YBR_FULL_422":
        if length >= size * picture.frames:
            raise UnusableImageError("YBR_FULL_422 with as many bytes as YBR_FULL: which is it?")
        size = size // 3 * 2
    before = (frame - 1) * size
    file.seek(before, io.SEEK_CUR)
    content = file.read(min(size, max(0, length - before)))  # what follows is no pixel
    if len(content) < size:
        raise UnusableImageError(f"cut off: {len(content)} of {size} bytes of frame {frame}")
    return content


class _Stored(NamedTuple):
    """Decoded values, (rows, columns) or (rows, columns, 3), and what they mean."""

    values: np.ndarray
    interpretation: str


def _decode(parsed: _Parsed, picture: _Picture, content: bytes) -> _Stored:
    syntax, interpretation = parsed.syntax, picture.interpretation
    if syntax in _JPEG_2000:
        stored = _Stored(_decode_jpeg_2000(picture, content), interpretation)
    elif syntax in (*_JPEG, *_JPEG_LS):
        stored = _decode_jpeg(syntax, picture, content)
    else:
        stored = _Stored(_decode_by_pydicom(parsed, content), interpretation)
    shape = (picture.rows, picture.columns, picture.samples)
    if stored.values.shape != (shape if picture.samples > 1 else shape[:2]):
        raise UnusableImageError(f"decoded to {stored.values.shape}; the header says {shape}")
    return stored


def _decode_by_pydicom(parsed: _Parsed, content: bytes) -> np.ndarray:
    from pydicom.encaps import encapsulate
    from pydicom.pixels import get_decoder
    from pydicom.pixels.utils import as_pixel_options

    is_native = parsed.syntax in _NATIVE
    options = as_pixel_options(parsed.dataset, number_of_frames=1, pixel_keyword="PixelData")
    options.pop("extended_offsets", None)  # of all frames
    values, _ = get_decoder(parsed.syntax).as_array(
        content + b"\0" * (len(content) % 2) if is_native else encapsulate([content]),
        index=0,
        raw=True,
        decoding_plugin="" if is_native else "pydicom",
        **options,
    )
    return values


def _decode_jpeg(syntax: "UID", picture: _Picture, content: bytes) -> _Stored:
    import imagecodecs

    segments = list_jpeg_segments(content)
    marker, start = next((s for s in segments if s[0] in JPEG_FRAME_HEADERS), (0, b""))
    if len(start) < 6:
        raise UnusableImageError("no JPEG stream in the frame")
    height, width, channels = struct.unpack(">xHHB", start[:6])
    _check_stream(picture, height, width, channels)
    interpretation = picture.interpretation
    if syntax in _JPEG_LS:
        # CharLS goes on for ever where the end is missing.
        if not content.rstrip(b"\0").endswith(b"\xff\xd9"):
            raise UnusableImageError("cut off: the end of the JPEG-LS stream is missing")
        return _Stored(imagecodecs.jpegls_decode(content), interpretation)
    check_jpeg(content)
    if damage := find_jpeg_damage(content):
        raise UnusableImageError(damage)
    if channels == 1:
        return _Stored(imagecodecs.jpeg8_decode(content), interpretation)
    head = content[: content.find(b"\xff\xda")]
    says_so = start[6::3].upper() == b"RGB" or b"JFIF\0" in head or b"Adobe" in head
    if marker != _LOSSLESS_JPEG and (says_so or interpretation != "RGB"):
        return _Stored(imagecodecs.jpeg8_decode(content, outcolorspace="RGB"), "RGB")
    # As it is: the same colour space on both sides converts nothing.
    values = imagecodecs.jpeg8_decode(content, colorspace="RGB", outcolorspace="RGB")
    return _Stored(values, interpretation)


def _decode_jpeg_2000(picture: _Picture, content: bytes) -> np.ndarray:
    """Decode a stream whose sizes (SIZ, its first segment) are those of the header."""
    import imagecodecs

    content = content[max(0, content.find(b"\xff\x4f\xff\x51")) :]
    right, bottom, left, top, tile_width, tile_height = struct.unpack(">8x6I", content[:32])
    channels = int.from_bytes(content[40:42], "big")
    _check_stream(picture, bottom - top, right - left, channels)
    if not tile_width or not tile_height:
        raise UnusableImageError("tiles without pixels in a JPEG 2000 stream")
    tiles = math.ceil(right / tile_width) * math.ceil(bottom / tile_height)
    if tiles > _MOST_TILES:
        raise UnusableImageError(f"{tiles} tiles in a JPEG 2000 stream; {_MOST_TILES} are allowed")
    return imagecodecs.jpeg2k_decode(content)


def _check_stream(picture: _Picture, height: int, width: int, channels: int) -> None:
    if (height, width, channels) != (picture.rows, picture.columns, picture.samples):
        raise UnusableImageError(
            f"the compressed frame has {width} x {height} pixels of {channels} channels, the "
            f"header says {picture.columns} x {picture.rows} of {picture.samples}"
        )


def _to_rgb(stored: _Stored, dataset: "Dataset", picture: _Picture) -> UInt8Array:
    from pydicom.pixels import convert_color_space

    values, interpretation = stored
    if picture.samples == 1:
        # What lies above BitsStored is no part of the value.
        values = values.view(f"u{values.itemsize}") & (2**picture.bits_stored - 1)
        if interpretation in _GREY:
            return np.repeat(_tabulate_grey(dataset, picture)[values][..., None], 3, axis=2)
        return _tabulate_palette(dataset, picture)[values]
    if values.dtype != np.uint8:
        raise UnusableImageError(f"colour as {values.dtype}; 8 bits are read of each channel")
    if interpretation not in _YBR:
        return np.ascontiguousarray(values)
    pixels = np.empty_like(values, order="C")
    rows = max(1, _STRIP // picture.columns)
    for top in range(0, picture.rows, rows):
        strip = convert_color_space(values[top : top + rows], "YBR_FULL", "RGB")
        pixels[top : top + rows] = strip
    return pixels


def _tabulate_grey(dataset: "Dataset", picture: _Picture) -> UInt8Array:
    """Return uint8 (2**BitsStored,): how bright each stored value is shown."""
    from pydicom.pixels import apply_modality_lut, apply_voi_lut

    n_values = 2**picture.bits_stored
    values = np.arange(n_values, dtype=np.int32)
    if _get_number(dataset, "PixelRepresentation") == 1:
        values = np.where(values < n_values // 2, values, values - n_values)
    if not float(dataset.get("RescaleSlope") or 1) > 0:
        raise UnusableImageError("RescaleSlope must be above 0")
    rescaled = apply_modality_lut(values, dataset)
    shown = np.asarray(apply_voi_lut(rescaled, dataset), dtype=np.float64)
    lowest, highest = float(rescaled.min()), float(rescaled.max())
    for name in _LUTS:
        if luts := dataset.get(name):
            lowest, highest = 0.0, 2.0 ** luts[0].LUTDescriptor[2] - 1
    grey = np.round((shown - lowest) / (highest - lowest) * 255).clip(0, 255).astype(np.uint8)
    return 255 - grey if picture.interpretation == "MONOCHROME1" else grey


def _tabulate_palette(dataset: "Dataset", picture: _Picture) -> UInt8Array:
    """Return uint8 (2**BitsStored, 3): the colour of each stored value."""
    from pydicom.pixels import apply_color_lut

    values = np.arange(2**picture.bits_stored, dtype=np.uint16)
    table = apply_color_lut(values, dataset)[:, :3]
    # Words of 16 bits have the brightness in the upper byte; some have only 8 bits in them.
    return (table >> 8 if table.max() > 255 else table).astype(np.uint8)
