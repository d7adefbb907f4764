"""What no model was made for, through every door: one line says why, and nothing stops."""

import base64
import gzip
import io
import json
import struct
import zipfile
import zlib
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from click.testing import CliRunner
from PIL import Image

from busi_pipeline.command_line import predict
from busi_pipeline.config.schemas import PredictionSettings
from busi_pipeline.datasets.journal import Journal
from busi_pipeline.datasets.package_service import PackageService
from busi_pipeline.imaging.decoding import UnusableImageError
from busi_pipeline.imaging.raw_files import RawFiles
from busi_pipeline.models.packaged import PackagedModel, load_package
from busi_pipeline.pipelines.prediction.nodes import list_images, read_images
from tests.dicom_factories import make_dicom, write_dicom
from tests.factories import encode_image, load_parameters
from tests.package_factories import draw_scan, write_tiny_package

DEDUPLICATION = load_parameters()["deduplication"]
SCAN = draw_scan(3)
PNG = encode_image(Image.fromarray(SCAN))
JPEG = encode_image(Image.fromarray(SCAN), "JPEG")
TIFF = encode_image(Image.fromarray(SCAN), "TIFF")
BMP = encode_image(Image.fromarray(SCAN), "BMP")
DICOM = write_dicom(make_dicom([SCAN[..., 0]]))


def make_chunk(kind: bytes, content: bytes) -> bytes:
    check = struct.pack(">I", zlib.crc32(kind + content))
    return struct.pack(">I", len(content)) + kind + content + check


def make_png(width: int, height: int, rows: bytes, depth: int = 8) -> bytes:
    """Return a grey PNG whose header says what it likes."""
    header = struct.pack(">IIBBBBB", width, height, depth, 0, 0, 0, 0)
    parts = (b"IHDR", header), (b"IDAT", zlib.compress(rows)), (b"IEND", b"")
    return b"\x89PNG\r\n\x1a\n" + b"".join(make_chunk(*part) for part in parts)


def make_grey(values: np.ndarray | int, kind: str = "PNG") -> bytes:
    pixels = np.broadcast_to(values, (60, 80)).astype(np.uint8)
    return encode_image(Image.fromarray(pixels), kind)


def make_zip() -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        archive.writestr("scan.png", PNG)
    return buffer.getvalue()


def claim_size(content: bytes, marker: bytes, offset: int, size: bytes) -> bytes:
    """Return a file whose header claims another size."""
    start = content.index(marker) + offset
    return content[:start] + size + content[start + len(size) :]


HUGE = struct.pack(">H", 60_000)
MASK = np.where(np.add.outer(np.arange(60), np.arange(80)) > 70, 255, 0)
CONTENTS: dict[str, bytes] = {
    "nothing": b"",
    "one byte": b"\x89",
    "text": b"this is no picture\n" * 40,
    "text of two bytes a letter": "this is no picture\n".encode("utf-16") * 40,
    "HTML": b"<!DOCTYPE html><html><body><img src='scan.png'></body></html>",
    "SVG": b"<svg xmlns='http://www.w3.org/2000/svg' width='80' height='60'/>",
    "JSON": b'{"image": "scan.png"}',
    "CSV": b"image,label\nscan.png,benign\n",
    "PDF": b"%PDF-1.7\n1 0 obj\n<<>>\nendobj\n",
    "ZIP with a scan": make_zip(),
    "GZIP of a scan": gzip.compress(PNG),
    "program": b"MZ\x90\x00" + bytes(200),
    "film": b"\x00\x00\x00\x20ftypisom" + bytes(200),
    "random bytes": np.random.default_rng(0).bytes(5000),
    "zeros": bytes(5000),
    "PNG signature": PNG[:8],
    "PNG header": PNG[:33],
    "half a PNG": PNG[: len(PNG) // 2],
    "PNG with other bytes inside": PNG[:60] + b"\x00" * 40 + PNG[100:],
    "PNG signature and text": PNG[:8] + b"this is no picture",
    "PNG of 60,000 x 60,000": make_png(60_000, 60_000, bytes(10)),
    "PNG of 0 x 0": make_png(0, 0, b""),
    "bomb: 20,000 x 20,000 in some kilobytes": make_png(20_000, 20_000, bytes(2_501) * 20_000, 1),
    "JPEG marker": JPEG[:2],
    "JPEG header": JPEG[:30],
    "quarter of a JPEG": JPEG[: len(JPEG) // 4],
    "JPEG marker and text": JPEG[:3] + b"this is no picture" * 10,
    "JPEG of 60,000 x 60,000": claim_size(JPEG, b"\xff\xc0", 5, HUGE + HUGE),
    "JPEG of 0 x 0": claim_size(JPEG, b"\xff\xc0", 5, bytes(4)),
    "TIFF header": TIFF[:8],
    "half a TIFF": TIFF[:400],
    "BMP header": BMP[:30],
    "BMP of 60,000 x 60,000": BMP[:18] + struct.pack("<ii", 60_000, 60_000) + BMP[26:],
    "1 x 1": make_png(1, 1, b"\x00\x80"),
    "31 x 400": encode_image(Image.fromarray(draw_scan(0, 400, 31))),
    "400 x 31": encode_image(Image.fromarray(draw_scan(0, 31, 400))),
    "black": make_grey(0),
    "white": make_grey(255),
    "grey": make_grey(77),
    "black JPEG": make_grey(0, "JPEG"),
    "nearly grey": make_grey(np.random.default_rng(0).integers(76, 80, (60, 80))),
    "mask": make_grey(MASK),
    "DICOM preamble": bytes(128) + b"DICM",
    "half a DICOM": DICOM[: len(DICOM) // 2],
    "DICOM without pixels": DICOM[: DICOM.rindex(struct.pack("<HH", 0x7FE0, 0x0010))],
    "DICOM of one grey value": write_dicom(make_dicom([np.full((60, 80), 50, np.uint8)])),
    "DICOM of 20 x 20": write_dicom(make_dicom([SCAN[:20, :20, 0]])),
}


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> PackagedModel:
    return load_package(write_tiny_package(tmp_path_factory.mktemp("packages") / "package"))


def ask_in_python(model: PackagedModel, content: bytes, folder: Path) -> str:
    with pytest.raises(UnusableImageError) as caught:
        model.predict_bytes(content)
    return str(caught.value)


def ask_by_file(model: PackagedModel, content: bytes, folder: Path) -> str:
    path = folder / "scan.png"
    path.write_bytes(content)
    with pytest.raises(UnusableImageError) as caught:
        model.predict_file(path)
    return str(caught.value)


def ask_on_the_command_line(model: PackagedModel, content: bytes, folder: Path) -> str:
    path = folder / "scan.png"
    path.write_bytes(content)
    done = CliRunner().invoke(predict, ["--json", "--model", str(model.folder), str(path)])
    assert done.exit_code == 1
    record = json.loads(done.output)
    assert record["file"] == str(path)
    return str(record["error"])


def ask_in_mlflow(model: PackagedModel, content: bytes, folder: Path) -> str:
    service = PackageService()
    service._model = model
    table = pd.DataFrame({"image": [base64.b64encode(content).decode(), base64.b64encode(PNG)]})
    answers = service.predict(None, table)
    assert answers["error"][1] == "", "the next image has its answer"
    return str(answers["error"][0])


def ask_by_folder(model: PackagedModel, content: bytes, folder: Path) -> str:
    files = RawFiles({"bad.png": lambda: content, "good.png": lambda: PNG})
    settings = PredictionSettings(folder="x", model=None)
    requests = list_images(files, settings)
    found = read_images(
        files, requests, model, Journal(folder / "j"), settings, DEDUPLICATION
    ).findings
    assert found["problem"][1] == ""
    assert found.loc[0, "positive_score"] is pd.NA or np.isnan(found.loc[0, "positive_score"])
    return str(found["problem"][0])


Ask = Callable[[PackagedModel, bytes, Path], str]
DOORS: dict[str, Ask] = {
    "bytes": ask_in_python,
    "file": ask_by_file,
    "command line": ask_on_the_command_line,
    "MLflow": ask_in_mlflow,
    "folder": ask_by_folder,
}


@pytest.mark.parametrize("name", CONTENTS)
def test_every_door_refuses_it_in_one_line(name: str, model: PackagedModel, tmp_path: Path) -> None:
    said = {door: ask(model, CONTENTS[name], tmp_path) for door, ask in DOORS.items()}
    line = said["bytes"]
    assert line
    assert "\n" not in line
    assert len(line) < 250
    assert "Traceback" not in line
    # A folder's DICOM files become frames before they come here; the same words all the same.
    assert {words for door, words in said.items() if door != "folder"} == {line}
    assert said["folder"]


ODD: dict[str, bytes] = {
    "grey": encode_image(Image.fromarray(SCAN[..., 0])),
    "16 bits": encode_image(Image.fromarray(SCAN[..., 0].astype(np.uint16) * 257)),
    "palette": encode_image(Image.fromarray(SCAN).convert("P")),
    "transparency": encode_image(Image.fromarray(SCAN).convert("RGBA")),
    "grey with transparency": encode_image(Image.fromarray(SCAN).convert("LA")),
    "CMYK": encode_image(Image.fromarray(SCAN).convert("CMYK"), "JPEG", quality=95),
    "progressive JPEG": encode_image(Image.fromarray(SCAN), "JPEG", quality=95, progressive=True),
    "TIFF": TIFF,
    "BMP": BMP,
    "DICOM": DICOM,
    "DICOM of 600 frames": write_dicom(make_dicom([SCAN[..., 0]] * 600)),
}


@pytest.mark.parametrize("name", ODD)
def test_odd_kinds_of_one_scan_have_its_answer(name: str, model: PackagedModel) -> None:
    expected = model.predict_bytes(PNG)
    answer = model.predict_bytes(ODD[name])
    assert answer.positive_score == pytest.approx(expected.positive_score, abs=0.03)
    assert (answer.width, answer.height) == (80, 60)


def test_the_table_is_long_enough() -> None:
    assert len(CONTENTS) + len(ODD) >= 50
