"""DICOM: frames as RGB, whatever they are stored as, and nothing that names a patient."""

import io
import logging
import shutil
import subprocess
import sys
import warnings
from pathlib import Path

import imagecodecs
import numpy as np
import pytest
from PIL import Image
from pydicom import Dataset
from pydicom.pixels import convert_color_space
from pydicom.uid import (
    UID,
    DeflatedExplicitVRLittleEndian,
    ExplicitVRBigEndian,
    ImplicitVRLittleEndian,
    JPEG2000Lossless,
    JPEGBaseline8Bit,
    JPEGExtended12Bit,
    JPEGLosslessSV1,
    JPEGLSLossless,
    RLELossless,
)

from busi_pipeline.errors import BadInputError
from busi_pipeline.imaging import dicom
from busi_pipeline.imaging.decoding import UnusableImageError
from busi_pipeline.imaging.dicom import (
    Region,
    decode_frame,
    is_dicom,
    read_header,
    select_frames,
)
from tests.dicom_factories import (
    SECRETS,
    compress,
    make_dicom,
    make_region,
    set_pixels,
    write_dicom,
)
from tests.factories import encode_image

LOSSLESS = [RLELossless, JPEGLosslessSV1, JPEGLSLossless, JPEG2000Lossless]


@pytest.fixture
def grey(rng: np.random.Generator) -> np.ndarray:
    steps = rng.normal(0, 6, (40, 61))
    return np.clip(np.cumsum(steps, axis=1) + 120, 0, 255).astype(np.uint8)


@pytest.fixture
def rgb(grey: np.ndarray) -> np.ndarray:
    return np.stack([grey, np.roll(grey, 9, axis=1), 255 - grey], axis=2)


def decode(dataset: Dataset, frame: int = 1, crop: bool = False) -> np.ndarray:
    pixels = decode_frame(write_dicom(dataset), frame, crop)
    assert pixels.dtype == np.uint8
    assert pixels.flags.c_contiguous
    return pixels


def as_rgb(grey: np.ndarray) -> np.ndarray:
    return np.repeat(grey[..., None], 3, axis=2)


def halve_chroma(ybr: np.ndarray) -> np.ndarray:
    """Store YBR as YBR_FULL_422: Y Y B R for each two pixels."""
    pairs = ybr.reshape(ybr.shape[0], -1, 2, 3)
    return np.concatenate([pairs[..., 0], pairs[:, :, 0, 1:]], axis=2)


# Pixels


def test_eight_bit_grey_is_as_it_is(grey: np.ndarray) -> None:
    np.testing.assert_array_equal(decode(make_dicom([grey])), as_rgb(grey))


def test_monochrome1_is_inverted(grey: np.ndarray) -> None:
    pixels = decode(make_dicom([grey], "MONOCHROME1"))
    np.testing.assert_array_equal(pixels, as_rgb(255 - grey))


@pytest.mark.parametrize("bits", [10, 12, 16])
def test_deep_grey_is_scaled_by_bits_stored(bits: int) -> None:
    values = np.linspace(0, 2**bits - 1, 1200).astype(np.uint16).reshape(30, 40)
    pixels = decode(make_dicom([values], BitsStored=bits))[..., 0]
    np.testing.assert_allclose(pixels, values / (2**bits - 1) * 255, atol=0.5)
    assert (pixels.min(), pixels.max()) == (0, 255)


def test_bits_above_bits_stored_do_not_count() -> None:
    values = np.arange(256, dtype=np.uint16).reshape(16, 16) * 16
    marked = make_dicom([values | 0x8000], BitsStored=12)  # an overlay, as in old files
    np.testing.assert_array_equal(decode(marked), decode(make_dicom([values], BitsStored=12)))


def test_signed_grey_is_shifted() -> None:
    values = np.arange(-128, 128, dtype=np.int8).reshape(16, 16)
    pixels = decode(make_dicom([values]))[..., 0]
    np.testing.assert_array_equal(pixels, np.arange(256).reshape(16, 16))


def test_a_window_is_applied() -> None:
    values = np.arange(4096, dtype=np.uint16).reshape(64, 64)
    dataset = make_dicom([values], BitsStored=12, WindowCenter=[500, 9], WindowWidth=[201, 9])
    pixels = decode(dataset)[..., 0].ravel()
    assert pixels[:400].max() == 0
    assert pixels[600:].min() == 255
    assert pixels[500] == pytest.approx(128, abs=1)


def test_the_usual_window_of_eight_bits_changes_nothing(grey: np.ndarray) -> None:
    windowed = decode(make_dicom([grey], WindowCenter=128, WindowWidth=256))
    np.testing.assert_array_equal(windowed, as_rgb(grey))


def test_a_window_counts_in_rescaled_values() -> None:
    values = np.arange(256, dtype=np.uint8).reshape(16, 16)
    dataset = make_dicom(
        [values], RescaleSlope=2, RescaleIntercept=-100, WindowCenter=100, WindowWidth=101
    )
    pixels = decode(dataset)[..., 0].ravel()
    assert pixels[74] == 0  # 2 * 74 - 100 = 48
    assert pixels[126] == 255  # 152


def test_a_voi_lut_is_applied(grey: np.ndarray) -> None:
    item = Dataset()
    item.LUTDescriptor = [256, 0, 16]
    item.add_new("LUTData", "US", [65535 - 257 * value for value in range(256)])
    np.testing.assert_array_equal(
        decode(make_dicom([grey], VOILUTSequence=[item])), 255 - as_rgb(grey)
    )


@pytest.mark.parametrize("planar", [0, 1])
def test_rgb_is_as_it_is(rgb: np.ndarray, planar: int) -> None:
    dataset = make_dicom([rgb], "RGB", PlanarConfiguration=planar)
    if planar:
        set_pixels(dataset, np.ascontiguousarray(rgb.transpose(2, 0, 1)).tobytes())
    np.testing.assert_array_equal(decode(dataset), rgb)


def test_ybr_full_becomes_rgb(rgb: np.ndarray) -> None:
    ybr = convert_color_space(rgb, "RGB", "YBR_FULL")
    pixels = decode(make_dicom([ybr], "YBR_FULL"))
    assert np.abs(pixels.astype(int) - rgb).max() <= 2


def test_ybr_is_converted_alike_in_strips(rgb: np.ndarray, monkeypatch: pytest.MonkeyPatch) -> None:
    dataset = make_dicom([rgb], "YBR_FULL")
    whole = decode(dataset)
    monkeypatch.setattr(dicom, "_STRIP", 200)
    np.testing.assert_array_equal(decode(dataset), whole)


def test_ybr_full_422_becomes_rgb(rgb: np.ndarray) -> None:
    even = np.repeat(rgb[:, :30], 2, axis=1)  # each two pixels share their colour
    ybr = convert_color_space(even, "RGB", "YBR_FULL")
    dataset = make_dicom([ybr], "YBR_FULL_422")
    set_pixels(dataset, halve_chroma(ybr).tobytes())
    assert np.abs(decode(dataset).astype(int) - even).max() <= 2


def test_ybr_full_422_that_is_not_halved_is_refused(rgb: np.ndarray) -> None:
    with pytest.raises(UnusableImageError, match="as many bytes as YBR_FULL"):
        decode(make_dicom([rgb[:, :60]], "YBR_FULL_422"))


@pytest.mark.parametrize("bits", [8, 16])
def test_palette_colour_becomes_rgb(grey: np.ndarray, bits: int) -> None:
    palette = np.stack([np.arange(256), np.arange(256)[::-1], np.arange(256) // 2], axis=1)
    dataset = make_dicom([grey], "PALETTE COLOR")
    for channel, name in enumerate(("Red", "Green", "Blue")):
        setattr(dataset, f"{name}PaletteColorLookupTableDescriptor", [256, 0, bits])
        values = palette[:, channel].astype(np.uint16) * (257 if bits == 16 else 1)
        content = values.astype(f"<u{bits // 8}").tobytes()
        setattr(dataset, f"{name}PaletteColorLookupTableData", content)
    np.testing.assert_array_equal(decode(dataset), palette[grey])


def test_implicit_vr_is_read(grey: np.ndarray) -> None:
    dataset = make_dicom([grey])
    dataset.file_meta.TransferSyntaxUID = ImplicitVRLittleEndian
    np.testing.assert_array_equal(decode(dataset), as_rgb(grey))


# Compressed


@pytest.mark.parametrize("syntax", LOSSLESS)
def test_lossless_syntaxes_give_the_same_grey(grey: np.ndarray, syntax: str) -> None:
    np.testing.assert_array_equal(decode(compress(make_dicom([grey]), syntax)), as_rgb(grey))


@pytest.mark.parametrize("syntax", LOSSLESS)
def test_lossless_syntaxes_give_the_same_twelve_bits(syntax: str) -> None:
    values = np.linspace(0, 4095, 1200).astype(np.uint16).reshape(30, 40)
    dataset = make_dicom([values], BitsStored=12)
    plain = decode(dataset)
    np.testing.assert_array_equal(decode(compress(dataset, syntax)), plain)


@pytest.mark.parametrize("interpretation", ["RGB", "YBR_FULL"])
@pytest.mark.parametrize("syntax", LOSSLESS)
def test_lossless_syntaxes_give_the_same_colour(
    rgb: np.ndarray, syntax: str, interpretation: str
) -> None:
    dataset = make_dicom([rgb], interpretation)
    plain = decode(dataset)
    streams = None
    if syntax == JPEG2000Lossless:  # its own colour transform makes RGB of YBR_RCT
        coded = {"RGB": "YBR_RCT"}.get(interpretation, interpretation)
        dataset.PhotometricInterpretation = coded
        mct = coded == "YBR_RCT"
        streams = [imagecodecs.jpeg2k_encode(rgb, level=0, codecformat="j2k", mct=mct)]
    elif interpretation == "YBR_FULL" and syntax != RLELossless:
        encode = {
            JPEGLosslessSV1: lambda a: imagecodecs.jpeg8_encode(a, lossless=True),
            JPEGLSLossless: imagecodecs.jpegls_encode,
        }[syntax]
        streams = [encode(rgb)]
    np.testing.assert_array_equal(decode(compress(dataset, syntax, streams)), plain)


@pytest.mark.parametrize("interpretation", ["YBR_FULL_422", "RGB"])
def test_jpeg_with_a_marker_is_read_as_pillow_does(rgb: np.ndarray, interpretation: str) -> None:
    """JFIF says YCbCr, so a header that was left at RGB does not turn the picture green."""
    stream = encode_image(Image.fromarray(rgb), "JPEG", quality=95)
    dataset = compress(make_dicom([rgb], interpretation), JPEGBaseline8Bit, [stream])
    expected = np.asarray(Image.open(io.BytesIO(stream)).convert("RGB"))
    np.testing.assert_array_equal(decode(dataset), expected)


def test_jpeg_without_a_marker_goes_by_the_header(rgb: np.ndarray) -> None:
    stream = imagecodecs.jpeg8_encode(rgb, 98, colorspace="RGB", outcolorspace="RGB")
    bare = stream[:2] + b"".join(_segments_without_adobe(stream))
    pixels = decode(compress(make_dicom([rgb], "RGB"), JPEGBaseline8Bit, [bare]))
    assert np.abs(pixels.astype(int) - rgb).max() < 25
    as_ybr = decode(compress(make_dicom([rgb], "YBR_FULL"), JPEGBaseline8Bit, [bare]))
    assert np.abs(as_ybr.astype(int) - rgb).max() > 100


def _segments_without_adobe(stream: bytes) -> list[bytes]:
    """Return a JPEG stream after its first marker, without APP markers, channels named 1, 2, 3."""
    parts, position = [], 2
    while stream[position + 1] != 0xDA:
        end = position + 2 + int.from_bytes(stream[position + 2 : position + 4], "big")
        segment = stream[position:end]
        if segment[1] == 0xC0:
            segment = segment.replace(b"R\x11", b"\1\x11").replace(b"G\x11", b"\2\x11")
            segment = segment.replace(b"B\x11", b"\3\x11")
        if segment[1] < 0xE0:
            parts.append(segment)
        position = end
    scan = stream[position:].replace(b"\3R\0G\0B\0", b"\3\1\0\2\0\3\0", 1)
    return [*parts, scan]


def test_twelve_bit_jpeg_is_read() -> None:
    values = np.linspace(0, 4095, 1600).astype(np.uint16).reshape(40, 40)
    stream = imagecodecs.jpeg8_encode(values, 98, bitspersample=12)
    dataset = compress(make_dicom([values], BitsStored=12), JPEGExtended12Bit, [stream])
    assert np.abs(decode(dataset)[..., 0] - values / 4095 * 255).max() < 2


# Frames


def test_only_the_frame_that_is_asked_for_is_decoded(grey: np.ndarray) -> None:
    streams = [imagecodecs.jpegls_encode(np.roll(grey, n, axis=0)) for n in range(3)]
    streams[0] = streams[2] = b"\xff\xd8 no JPEG-LS "
    dataset = compress(make_dicom([grey] * 3), JPEGLSLossless, streams)
    np.testing.assert_array_equal(decode(dataset, 2), as_rgb(np.roll(grey, 1, axis=0)))


@pytest.mark.parametrize("syntax", [None, RLELossless])
def test_frames_are_counted_from_one(grey: np.ndarray, syntax: str | None) -> None:
    frames = [np.roll(grey, n, axis=0) for n in range(3)]
    dataset = make_dicom(frames)
    if syntax:
        compress(dataset, syntax)
    for number, frame in enumerate(frames, start=1):
        np.testing.assert_array_equal(decode(dataset, number), as_rgb(frame))
    with pytest.raises(UnusableImageError, match="no frame 4"):
        decode(dataset, 4)


def test_an_open_file_is_read_as_its_content_is(grey: np.ndarray, tmp_path: Path) -> None:
    content = write_dicom(make_dicom([grey, 255 - grey]))
    (tmp_path / "a").write_bytes(content)
    with (tmp_path / "a").open("rb") as opened:
        np.testing.assert_array_equal(decode_frame(opened, 2, False), as_rgb(255 - grey))
        assert read_header(opened) == read_header(content)


@pytest.mark.parametrize(
    ("setting", "n", "expected"),
    [
        ("first", 9, [1]),
        ("middle", 1, [1]),
        ("middle", 9, [5]),
        ("middle", 10, [5]),
        ("all", 3, [1, 2, 3]),
        ("every 10", 25, [1, 11, 21]),
        ("every 10", 3, [1]),
        (7, 9, [7]),
        ("7", 9, [7]),
    ],
)
def test_frames_are_selected_as_the_setting_says(
    setting: str | int, n: int, expected: list[int]
) -> None:
    assert select_frames(setting, n) == expected


def test_a_frame_number_beyond_the_last_is_refused() -> None:
    with pytest.raises(UnusableImageError, match="9 frames, so there is no frame 10"):
        select_frames(10, 9)


# Region


def test_the_largest_tissue_region_is_cut_out(grey: np.ndarray) -> None:
    regions = [
        make_region(0, 0, 60, 39, RegionDataType=3),  # a spectrum
        make_region(0, 0, 60, 39, RegionSpatialFormat=2),  # M-mode
        make_region(1, 1, 4, 4),
        make_region(10, 5, 49, 34),
    ]
    dataset = make_dicom([grey], SequenceOfUltrasoundRegions=regions)
    assert read_header(write_dicom(dataset)).region == Region(10, 5, 50, 35)
    np.testing.assert_array_equal(decode(dataset, crop=True), as_rgb(grey[5:35, 10:50]))
    np.testing.assert_array_equal(decode(dataset, crop=False), as_rgb(grey))


def test_a_region_ends_where_the_picture_does(grey: np.ndarray) -> None:
    dataset = make_dicom([grey], SequenceOfUltrasoundRegions=[make_region(10, 5, 999, 999)])
    np.testing.assert_array_equal(decode(dataset, crop=True), as_rgb(grey[5:, 10:]))


def test_a_region_outside_the_picture_is_refused(grey: np.ndarray) -> None:
    dataset = make_dicom([grey], SequenceOfUltrasoundRegions=[make_region(700, 5, 999, 999)])
    with pytest.raises(UnusableImageError, match="crop_to_region: false"):
        decode(dataset, crop=True)
    assert decode(dataset, crop=False).shape == (40, 61, 3)


# Header


def test_the_header_says_what_it_is_asked(grey: np.ndarray) -> None:
    dataset = make_dicom(
        [grey] * 3,
        Manufacturer="GE Healthcare ",
        ManufacturerModelName="LOGIQ  E9",
        PatientAge="047Y",
        ImageLaterality="L",
        ViewPosition="ML",
        SequenceOfUltrasoundRegions=[make_region(10, 5, 49, 34, 0.00712)],
    )
    header = read_header(write_dicom(dataset))
    assert (header.device, header.age, header.view) == ("GE Healthcare LOGIQ E9", "47", "left ML")
    assert (header.frames, header.rows, header.columns) == (3, 40, 61)
    assert header.pixel_spacing_mm == "0.0712"
    assert header.patient_id == "PID-4711"
    assert {"doe", "jane", "19690702", "acc-0815", "house"} <= set(header.identifiers)


@pytest.mark.parametrize(
    ("age", "expected"),
    [("047Y", "47"), ("018M", "1"), ("010D", "0"), ("097Y", "90"), ("old", ""), (None, "")],
)
def test_age_is_in_years_and_grouped_from_ninety(
    grey: np.ndarray, age: str | None, expected: str
) -> None:
    dataset = make_dicom([grey])
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        if age:
            dataset.PatientAge = age
        content = write_dicom(dataset)
    assert read_header(content).age == expected


def test_pixel_spacing_names_both_sides_where_they_differ(grey: np.ndarray) -> None:
    dataset = make_dicom([grey], PixelSpacing=[0.1, 0.2])
    assert read_header(write_dicom(dataset)).pixel_spacing_mm == "0.1 x 0.2"


def test_units_other_than_centimetres_give_no_spacing(grey: np.ndarray) -> None:
    region = make_region(10, 5, 49, 34, PhysicalUnitsXDirection=4)  # seconds
    dataset = make_dicom([grey], SequenceOfUltrasoundRegions=[region])
    assert read_header(write_dicom(dataset)).pixel_spacing_mm == ""


def test_a_device_that_holds_a_name_is_left_out(grey: np.ndarray) -> None:
    dataset = make_dicom([grey], Manufacturer="GE", ManufacturerModelName="room of Jane")
    assert read_header(write_dicom(dataset)).device == ""


def test_free_text_is_no_view(grey: np.ndarray) -> None:
    dataset = make_dicom([grey], ViewPosition="JANE DOE L")
    assert read_header(write_dicom(dataset)).view == ""


def test_dicom_is_told_by_its_mark(grey: np.ndarray) -> None:
    assert is_dicom(write_dicom(make_dicom([grey]))[:132])
    assert not is_dicom(b"\x89PNG" + bytes(200))
    assert not is_dicom(b"")


# What cannot be read


def _no_pixels(dataset: Dataset) -> None:
    del dataset.PixelData


def _cut_off(dataset: Dataset) -> None:
    set_pixels(dataset, dataset.PixelData[:-600])
    dataset.DataSetTrailingPadding = bytes(5000)


def _set(**elements: object) -> object:
    def change(dataset: Dataset) -> None:
        for keyword, value in elements.items():
            setattr(dataset, keyword, value)

    return change


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        (_no_pixels, "no pixel data"),
        (_cut_off, "cut off: "),
        (_set(Rows=0), "no picture"),
        (_set(SOPInstanceUID=""), "no SOPInstanceUID"),
        (_set(NumberOfFrames=2_000_000), "at most 10000"),
        (_set(PhotometricInterpretation="CMYK"), "allowed is MONOCHROME1, MONOCHROME2"),
        (_set(PhotometricInterpretation="YBR_RCT"), "allowed is MONOCHROME1"),
        (_set(SamplesPerPixel=4), "allowed is none"),
        (_set(BitsAllocated=32, BitsStored=32), "32 of 32 bits"),
        (_set(HighBit=3), "HighBit must be 7"),
        (_set(WindowCenter=10, WindowWidth=0), r"unreadable DICOM pixels \(ValueError\)"),
        (_set(RescaleSlope=-1, RescaleIntercept=0), "RescaleSlope"),
    ],
)
def test_what_cannot_be_read_says_why(grey: np.ndarray, change: object, reason: str) -> None:
    dataset = make_dicom([grey])
    assert callable(change)
    change(dataset)
    with pytest.raises(UnusableImageError, match=reason):
        decode(dataset)


@pytest.mark.parametrize("syntax", [ExplicitVRBigEndian, DeflatedExplicitVRLittleEndian])
def test_other_transfer_syntaxes_are_named(grey: np.ndarray, syntax: str) -> None:
    dataset = make_dicom([grey])
    dataset.file_meta.TransferSyntaxUID = syntax
    with pytest.raises(UnusableImageError, match=f"{UID(syntax).name}.* are read"):
        decode(dataset)


def test_too_many_pixels_are_refused_before_decoding(
    grey: np.ndarray, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(dicom, "_read_frame", None)
    content = write_dicom(make_dicom([grey]))
    with pytest.raises(UnusableImageError, match=r"61 x 40 pixels.*2,000.*ingestion\.max_pixels"):
        decode_frame(content, 1, False, max_pixels=2000)


@pytest.mark.parametrize("syntax", [JPEGBaseline8Bit, *LOSSLESS[1:]])
def test_a_stream_of_another_size_is_refused(grey: np.ndarray, syntax: str) -> None:
    """Its own header could ask for any amount of memory."""
    dataset = compress(make_dicom([np.tile(grey, (2, 2))]), syntax)
    dataset.Rows, dataset.Columns = grey.shape
    with pytest.raises(UnusableImageError, match="122 x 80 pixels of 1 channels, the header says"):
        decode(dataset)


@pytest.mark.parametrize("syntax", [JPEGBaseline8Bit, *LOSSLESS])
def test_a_stream_that_is_cut_off_is_refused(grey: np.ndarray, syntax: str) -> None:
    dataset = compress(make_dicom([grey]), syntax)
    start = dataset.PixelData[8:]  # after the empty offset table
    length = int.from_bytes(dataset.PixelData[4:8], "little")
    stream = dataset.PixelData[8 + length + 8 : -8] if length else start[8:-8]
    compress(dataset, syntax, [stream[: len(stream) // 2 // 2 * 2]])
    with pytest.raises(UnusableImageError):
        decode(dataset)


def test_damaged_jpeg_data_are_refused(rgb: np.ndarray) -> None:
    stream = encode_image(Image.fromarray(rgb), "JPEG", quality=95)
    middle = len(stream) // 2
    damaged = stream[:middle] + bytes(200) + stream[middle + 200 :]
    dataset = compress(make_dicom([rgb], "YBR_FULL_422"), JPEGBaseline8Bit, [damaged])
    with pytest.raises(UnusableImageError, match="damaged JPEG data"):
        decode(dataset)


def test_many_tiles_are_refused(grey: np.ndarray) -> None:
    stream = bytearray(imagecodecs.jpeg2k_encode(np.tile(grey, (2, 2)), codecformat="j2k"))
    stream[24:32] = bytes([0, 0, 0, 1, 0, 0, 0, 1])  # tiles of one pixel
    dataset = compress(make_dicom([np.tile(grey, (2, 2))]), JPEG2000Lossless, [bytes(stream)])
    with pytest.raises(UnusableImageError, match="9760 tiles"):
        decode(dataset)


def test_endless_items_are_refused(grey: np.ndarray) -> None:
    """pydicom would take a gigabyte for the items of a few megabytes."""
    regions = [Dataset() for _ in range(2)]
    content = write_dicom(make_dicom([grey], SequenceOfUltrasoundRegions=regions))
    item = b"\xfe\xff\x00\xe0" + bytes(4)
    with pytest.raises(UnusableImageError, match="more than 50000 items"):
        decode_frame(content.replace(item, item * 30_000), 1, False)


@pytest.mark.parametrize("content", [b"", b"DICM", bytes(500), b"\x89PNG\r\n\x1a\n" + bytes(300)])
def test_what_is_no_dicom_is_refused(content: bytes) -> None:
    with pytest.raises(UnusableImageError, match="no DICOM file"):
        read_header(content)


def test_without_pydicom_one_line_says_what_to_install(
    grey: np.ndarray, monkeypatch: pytest.MonkeyPatch
) -> None:
    content = write_dicom(make_dicom([grey]))
    monkeypatch.setitem(sys.modules, "pydicom.datadict", None)
    with pytest.raises(BadInputError, match=r"pip install 'busi_pipeline\[dicom\]'") as caught:
        read_header(content)
    assert "\n" not in str(caught.value)


def test_no_message_log_or_warning_names_a_patient(
    grey: np.ndarray,
    rng: np.random.Generator,
    caplog: pytest.LogCaptureFixture,
    capfd: pytest.CaptureFixture[str],
) -> None:
    """Damage moves text to where it does not belong; pydicom's warnings quote it there."""
    logging.getLogger("pydicom").setLevel(logging.DEBUG)
    content = write_dicom(compress(make_dicom([grey]), RLELossless))
    messages = []
    with warnings.catch_warnings(record=True) as warned:
        warnings.simplefilter("always")
        for _ in range(150):
            damaged = bytearray(content)
            for position in rng.integers(132, len(content) - 900, 4):
                damaged[position] = rng.integers(256)
            try:
                decode_frame(bytes(damaged), 1, True)
            except UnusableImageError as error:
                messages.append(str(error))
    said = capfd.readouterr()
    texts = [*messages, *(str(w.message) for w in warned), caplog.text, said.out, said.err]
    everything = "\n".join(texts).casefold()
    assert len(messages) > 20
    assert not [secret for secret in SECRETS if secret.casefold() in everything]


# A second decoder


@pytest.mark.skipif(
    shutil.which("dcmj2pnm") is None, reason="dcmtk is not installed: apt-get install dcmtk"
)
@pytest.mark.parametrize(
    ("kind", "tolerance", "options"),
    [
        ("grey", 0, []),
        ("monochrome1", 1, []),
        ("12 bit", 1, []),
        ("signed", 1, []),
        ("window", 1, ["+Wi", "1"]),
        ("rescaled", 1, []),
        ("rgb", 0, []),
        ("planar", 0, []),
        ("ybr_full", 2, []),
        ("ybr_full_422", 2, []),
        ("palette", 1, []),
        ("rle rgb", 0, []),
        ("rle ybr_full", 2, []),
        ("jpeg grey", 0, []),
        ("jpeg colour", 1, []),
        ("jpeg lossless", 0, []),
        ("jpeg lossless 12 bit", 1, []),
        ("second frame", 0, ["+F", "2"]),
    ],
)
def test_dcmtk_decodes_the_same(
    kind: str,
    tolerance: int,
    options: list[str],
    grey: np.ndarray,
    rgb: np.ndarray,
    tmp_path: Path,
) -> None:
    even, deep = rgb[:, :60], grey.astype(np.uint16) * 16 + 5
    ybr = convert_color_space(even, "RGB", "YBR_FULL")
    datasets = {
        "grey": lambda: make_dicom([grey]),
        "monochrome1": lambda: make_dicom([grey], "MONOCHROME1"),
        "12 bit": lambda: make_dicom([deep], BitsStored=12),
        "signed": lambda: make_dicom([deep.astype(np.int16) - 2048], BitsStored=12),
        "window": lambda: make_dicom([deep], BitsStored=12, WindowCenter=1900, WindowWidth=1500),
        "rescaled": lambda: make_dicom([deep], BitsStored=12, RescaleSlope=2, RescaleIntercept=-9),
        "rgb": lambda: make_dicom([rgb], "RGB"),
        "planar": lambda: _make_planar(rgb),
        "ybr_full": lambda: make_dicom([ybr], "YBR_FULL"),
        "ybr_full_422": lambda: _make_422(ybr),
        "palette": lambda: _make_palette(grey),
        "rle rgb": lambda: compress(make_dicom([rgb], "RGB"), RLELossless),
        "rle ybr_full": lambda: compress(make_dicom([ybr], "YBR_FULL"), RLELossless),
        "jpeg grey": lambda: compress(make_dicom([grey]), JPEGBaseline8Bit),
        "jpeg colour": lambda: compress(
            make_dicom([rgb], "YBR_FULL_422"),
            JPEGBaseline8Bit,
            [encode_image(Image.fromarray(rgb), "JPEG", quality=95, subsampling=1)],
        ),
        "jpeg lossless": lambda: compress(make_dicom([rgb], "RGB"), JPEGLosslessSV1),
        "jpeg lossless 12 bit": lambda: compress(
            make_dicom([deep], BitsStored=12), JPEGLosslessSV1
        ),
        "second frame": lambda: make_dicom([grey, 255 - grey]),
    }
    dataset = datasets[kind]()
    (tmp_path / "in.dcm").write_bytes(write_dicom(dataset))
    subprocess.run(
        ["dcmj2pnm", "+on", *options, "in.dcm", "out.png"],
        cwd=tmp_path,
        check=True,
        capture_output=True,
    )
    theirs = np.asarray(Image.open(tmp_path / "out.png").convert("RGB")).astype(int)
    ours = decode(dataset, frame=2 if kind == "second frame" else 1)
    assert np.abs(ours - theirs).max() <= tolerance


def _make_planar(rgb: np.ndarray) -> Dataset:
    dataset = make_dicom([rgb], "RGB", PlanarConfiguration=1)
    set_pixels(dataset, np.ascontiguousarray(rgb.transpose(2, 0, 1)).tobytes())
    return dataset


def _make_422(ybr: np.ndarray) -> Dataset:
    dataset = make_dicom([ybr], "YBR_FULL_422")
    set_pixels(dataset, halve_chroma(ybr).tobytes())
    return dataset


def _make_palette(grey: np.ndarray) -> Dataset:
    dataset = make_dicom([grey], "PALETTE COLOR")
    for name, values in zip(
        ("Red", "Green", "Blue"),
        (np.arange(256), 255 - np.arange(256), np.arange(256) // 2),
        strict=True,
    ):
        setattr(dataset, f"{name}PaletteColorLookupTableDescriptor", [256, 0, 16])
        content = (values * 257).astype("<u2").tobytes()
        setattr(dataset, f"{name}PaletteColorLookupTableData", content)
    return dataset
