"""A folder of images: every file has its row, and nothing stops at a bad one."""

import io
import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pandas as pd
import pytest
from PIL import Image
from threadpoolctl import threadpool_info

from busi_pipeline.config.schemas import PredictionSettings, PrivacySettings
from busi_pipeline.datasets.journal import Journal
from busi_pipeline.errors import BadInputError
from busi_pipeline.imaging.decoding import UnusableImageError
from busi_pipeline.imaging.quality import CheckedImage
from busi_pipeline.imaging.raw_files import RawFiles
from busi_pipeline.models.packaged import Answer, PackagedModel, load_package
from busi_pipeline.pipelines.prediction.nodes import (
    BOX,
    Findings,
    draw_overlays,
    list_images,
    read_images,
    write_sheet,
)
from busi_pipeline.synthetic import simulate_scan
from tests.factories import encode_image, load_parameters
from tests.package_factories import ANYTHING, draw_scan, write_tiny_package

SCANS = {seed: draw_scan(seed, level=60 + 30 * seed) for seed in range(5)}


def encode(seed: int) -> bytes:
    return encode_image(Image.fromarray(SCANS[seed]))


def as_files(content: dict[str, bytes], **unusable: str) -> RawFiles:
    return RawFiles({name: (lambda c=c: c) for name, c in content.items()}, unusable)


FILES = as_files(
    {
        "a.png": encode(0),
        "b/c.png": encode(4),
        "b/d #1 ä.png": encode(2),
        "copy.png": encode(4),
        "bad.png": b"no image",
        "empty.png": b"",
        "black.png": encode_image(Image.new("L", (60, 60))),
        "list.csv": b"image\na.png\n",
        "README.md": b"read me",
    },
    pipe="a pipe, not a file",
)


DEDUPLICATION = load_parameters()["deduplication"]


def ask(folder: str | None) -> PredictionSettings:
    return PredictionSettings(folder=folder, model=None)


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> PackagedModel:
    folder = tmp_path_factory.mktemp("packages") / "package"
    return load_package(write_tiny_package(folder, locates=True))


@pytest.fixture
def answers(model: PackagedModel, tmp_path: Path) -> Findings:
    requests = list_images(FILES, ask("/data/scans"))
    return read_images(
        FILES, requests, model, Journal(tmp_path / "j.jsonl"), ask("/data/scans"), DEDUPLICATION
    )


@pytest.fixture
def findings(answers: Findings) -> pd.DataFrame:
    return answers.findings


def test_every_file_that_may_be_an_image_is_asked_for() -> None:
    requests = list_images(FILES, ask("/data/scans"))
    assert requests["image"].tolist() == sorted({*FILES, "pipe"} - {"list.csv", "README.md"})
    assert (requests[BOX] == "").all(axis=None)
    with pytest.raises(BadInputError, match="no images in /data/scans"):
        list_images(as_files({"README.md": b""}), ask("/data/scans"))


def test_a_table_names_images_and_boxes() -> None:
    text = "Image,left,top,right,bottom,note\nb/c.png,1,2,30,40,x\na.png,,,,,\n../x.png,,,,,\n"
    files = as_files({**dict.fromkeys(FILES, b""), "list.csv": text.encode("utf-8-sig")})
    requests = list_images(files, ask("/data/scans/list.csv"))
    assert requests["image"].tolist() == ["b/c.png", "a.png", "../x.png"]
    assert requests.loc[0, BOX].tolist() == ["1", "2", "30", "40"]
    assert requests.loc[1, BOX].tolist() == ["", "", "", ""]
    wrong = as_files({"list.csv": b"file\na.png\n"})
    with pytest.raises(BadInputError, match="lacks the columns image; it has file"):
        list_images(wrong, ask("/data/scans/list.csv"))


def test_a_bad_file_is_a_row_with_its_reason(findings: pd.DataFrame) -> None:
    by_image = findings.set_index("image")
    assert len(by_image) == 8
    reasons = by_image["problem"]
    assert reasons["bad.png"].startswith("unreadable")
    assert reasons["empty.png"] == "zero bytes"
    assert reasons["black.png"].startswith("no picture")
    assert reasons["pipe"] == "a pipe, not a file"
    usable = by_image[reasons == ""]
    assert set(usable.index) == {"a.png", "b/c.png", "b/d #1 ä.png", "copy.png"}
    assert by_image.loc[reasons != "", ["flagged", "positive_score", "left"]].isna().all(axis=None)
    assert usable["positive_score"].notna().all()
    assert (usable["box_source"] == "localizer").all()
    assert usable.loc["copy.png", "same_as"] == "b/c.png"
    assert usable.loc["b/c.png", "same_as"] == ""


def test_rows_are_those_of_the_model(findings: pd.DataFrame, model: PackagedModel) -> None:
    for image, seed in (("a.png", 0), ("b/d #1 ä.png", 2), ("b/c.png", 4)):
        row = findings.set_index("image").loc[image]
        answer = model.predict_pixels(SCANS[seed])
        assert row["flagged"] == answer.flagged
        assert row["positive_score"] == answer.positive_score
        assert row["p_benign"] == answer.probabilities["benign"]
        assert answer.box is not None
        np.testing.assert_allclose([row[edge] for edge in BOX], answer.box, atol=0.06)
        assert (row["width"], row["height"]) == (80, 60)
        assert row["model_version"] == model.version


def test_a_box_of_a_reader_is_used_and_a_wrong_one_is_a_reason(
    model: PackagedModel, tmp_path: Path
) -> None:
    text = "image,left,top,right,bottom\na.png,5,5,30,40\nb/c.png,5,5,300,40\ngone.png,,,,\n"
    files = as_files({**{n: FILES[n]() for n in FILES}, "list.csv": text.encode()})
    requests = list_images(files, ask("list.csv"))
    found = read_images(
        files, requests, model, Journal(tmp_path / "j.jsonl"), ask("list.csv"), DEDUPLICATION
    ).findings
    assert found["box_source"].tolist() == ["reader", "", ""]
    assert found.loc[0, BOX].tolist() == [5, 5, 30, 40]
    assert found.loc[1, "problem"].startswith("a box is left, top, right and bottom")
    assert found.loc[2, "problem"] == "the table names it, but the folder does not have it"


def test_an_interrupted_run_asks_only_for_the_rest(
    model: PackagedModel, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    requests = list_images(FILES, ask("scans"))
    path = tmp_path / "j.jsonl"
    asked: list[np.ndarray] = []
    interrupted: list[bool] = []
    plain = PackagedModel.predict_image

    def stop(self: PackagedModel, image: CheckedImage, box: Any = None) -> Answer:
        if np.array_equal(image.pixels, SCANS[2]) and not interrupted:
            interrupted.append(True)
            raise KeyboardInterrupt
        asked.append(image.pixels)
        return plain(self, image, box)

    monkeypatch.setattr(PackagedModel, "predict_image", stop)
    with pytest.raises(KeyboardInterrupt):
        read_images(FILES, requests, model, Journal(path), ask("scans"), DEDUPLICATION)
    assert len(list(Journal(path).items())) == 2, "the two before it"
    asked.clear()
    found = read_images(FILES, requests, model, Journal(path), ask("scans"), DEDUPLICATION).findings
    assert len(asked) == 1, "the one that was interrupted"
    np.testing.assert_array_equal(asked[0], SCANS[2])
    monkeypatch.undo()
    pd.testing.assert_frame_equal(
        found,
        read_images(
            FILES, requests, model, Journal(tmp_path / "other.jsonl"), ask("scans"), DEDUPLICATION
        ).findings,
    )


def test_another_model_is_asked_again(model: PackagedModel, tmp_path: Path) -> None:
    requests = list_images(FILES, ask("scans"))
    path = tmp_path / "j.jsonl"
    read_images(FILES, requests, model, Journal(path), ask("scans"), DEDUPLICATION)
    other = load_package(write_tiny_package(tmp_path / "package", card="# Other\n"))
    found = read_images(FILES, requests, other, Journal(path), ask("scans"), DEDUPLICATION).findings
    assert set(found["model_version"]) == {other.version, ""}


def test_files_are_read_a_few_ahead_and_no_more(model: PackagedModel, tmp_path: Path) -> None:
    read: list[int] = []
    contents = [encode(seed) for seed in range(5)]

    def make(number: int) -> Callable[[], bytes]:
        def read_bytes() -> bytes:
            read.append(number)
            return contents[number % 5]

        return read_bytes

    files = RawFiles({f"{number:03d}.png": make(number) for number in range(40)})
    seen = []
    plain = model.predict_image
    asked = load_package(write_tiny_package(tmp_path / "package"))
    asked.predict_image = lambda *a: (seen.append(len(read)), plain(*a))[1]  # type: ignore
    read_images(
        files, list_images(files, ask("x")), asked, Journal(tmp_path / "j"), ask("x"), DEDUPLICATION
    )
    assert len(read) == 40
    assert all(count - position <= 10 for position, count in enumerate(seen))


def test_a_file_that_cannot_be_opened_is_a_reason(model: PackagedModel, tmp_path: Path) -> None:
    def refuse() -> bytes:
        raise PermissionError(13, "Permission denied")

    def damaged() -> bytes:
        raise UnusableImageError("unreadable DICOM pixels: cut")

    files = RawFiles({"a.png": encode_later(0), "b.png": refuse, "c.dcm": damaged})
    found = read_images(
        files, list_images(files, ask("x")), model, Journal(tmp_path / "j"), ask("x"), DEDUPLICATION
    )
    assert found.findings["problem"].tolist() == [
        "",
        "it cannot be read: Permission denied",
        "unreadable DICOM pixels: cut",
    ]


def encode_later(seed: int) -> Callable[[], bytes]:
    return lambda: encode(seed)


def test_overlays_show_the_box_where_it_is(answers: Findings) -> None:
    findings = answers.findings
    drawn = draw_overlays(FILES, findings, answers.attribution, PrivacySettings(cover_text=False))
    assert len(drawn) == 8
    first = findings.index[findings["image"] == "a.png"][0]
    picture = np.asarray(drawn[f"{first + 1:06d}"]())
    assert picture.shape == (60, 80, 3)
    row = findings.loc[first]
    coloured = (picture.max(axis=2).astype(int) - picture.min(axis=2)) > 100
    assert coloured[round(row["top"]), round(row["left"])]
    assert not coloured[round(row["top"]) + 3, round(row["left"]) + 3]


def test_overlays_show_what_speaks_for_and_against(tmp_path: Path) -> None:
    """To this model, what is brighter than half speaks for malignant."""
    halves = np.hstack([draw_scan(1, 60, 40, level=30), draw_scan(2, 60, 40, level=220)])
    files = as_files({"a.png": encode_image(Image.fromarray(halves))})
    model = load_package(write_tiny_package(tmp_path / "package"))
    requests, journal = list_images(files, ask("x")), Journal(tmp_path / "j")
    found = read_images(files, requests, model, journal, ask("x"), DEDUPLICATION)
    drawn = draw_overlays(
        files, found.findings, found.attribution, PrivacySettings(cover_text=False)
    )
    picture = np.asarray(drawn["000001_attribution"]()).astype(int)
    redness = picture[..., 0] - picture[..., 2]
    assert redness[:, :36].max() < -40
    assert redness[:, 44:].min() > 20
    np.testing.assert_array_equal(np.asarray(drawn["000001"]()), halves)


def test_without_attribution_there_is_the_box_alone(
    answers: Findings, model: PackagedModel, tmp_path: Path
) -> None:
    findings = answers.findings
    none = answers.attribution[:0]
    drawn = draw_overlays(FILES, findings, none, PrivacySettings(cover_text=False))
    assert len(drawn) == 4
    page = write_sheet(findings, none, model, load_parameters()["dataset"])
    assert "attribution" not in re.sub(r"(?s)<style>.*</style>|<script>.*</script>", "", page)


def test_the_sheet_shows_the_flagged_first_and_every_reason(
    answers: Findings, model: PackagedModel
) -> None:
    findings, attribution = answers.findings, answers.attribution
    page = write_sheet(findings, attribution, model, load_parameters()["dataset"])
    order = [page.index(f"<h2>{name}</h2>") for name in ("b/c.png", "a.png", "bad.png")]
    assert order == sorted(order)
    assert len(re.findall(r"<article", page)) == 8
    assert "no image format was recognised" in page
    assert "b/d #1 ä.png" in page
    named = set(re.findall(r'src="overlays/(\w+)\.png"', page))
    drawn = draw_overlays(FILES, findings, attribution, PrivacySettings(cover_text=True))
    assert named == set(drawn)
    assert "http" not in page, "nothing comes from elsewhere"


def test_a_file_name_is_no_code(model: PackagedModel, tmp_path: Path) -> None:
    name = '"><script>alert(1)</script>.png'
    files = as_files({name: encode(0)})
    requests = list_images(files, ask("x"))
    found = read_images(files, requests, model, Journal(tmp_path / "j"), ask("x"), DEDUPLICATION)
    page = write_sheet(found.findings, found.attribution, model, load_parameters()["dataset"])
    assert "<script>alert" not in page


def test_findings_keep_their_types_in_a_file(findings: pd.DataFrame) -> None:
    buffer = io.BytesIO()
    findings.to_parquet(buffer)
    pd.testing.assert_frame_equal(pd.read_parquet(buffer), findings)


def test_an_image_that_was_sent_before_is_marked(tmp_path: Path) -> None:
    """The same file, in this folder or another; and a copy of it, annotated."""
    like = ANYTHING._replace(similarity=0.999999)
    model = load_package(write_tiny_package(tmp_path / "package", limits=like))
    path = tmp_path / "j.jsonl"

    def read(folder: str, **files: bytes) -> dict[str, str]:
        own = as_files({f"{name}.png": content for name, content in files.items()})
        settings = ask(folder)
        table = read_images(
            own, list_images(own, settings), model, Journal(path), settings, DEDUPLICATION
        )
        return dict(zip(table.findings["image"], table.findings["same_as"], strict=True))

    first = encode(1)
    first_week = read("/scans/week one", a=first, b=encode(2), c=first)
    assert first_week == {"a.png": "", "b.png": "", "c.png": "a.png"}
    rewritten = encode_image(Image.fromarray(SCANS[2]), "TIFF")
    later = read("/scans/week two", d=encode(4), e=rewritten, f=first)
    assert later == {"d.png": "", "e.png": "week_one: b.png", "f.png": "week_one: a.png"}
    assert read("/scans/week one", a=first, b=encode(2), c=first) == first_week


def test_of_alike_images_the_fine_detail_decides(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """TRAP: at another site, all images are alike to the network."""
    monkeypatch.setattr("busi_pipeline.pipelines.prediction.nodes._NEARLY_THE_SAME", 2.0)
    limits = ANYTHING._replace(similarity=-2.0)
    model = load_package(write_tiny_package(tmp_path / "package", limits=limits))
    scans = [simulate_scan("benign", 300, 360, np.random.default_rng(n)).image for n in range(2)]
    marked = scans[0].copy()
    marked[-12:, -60:] = 255
    pictures = {"a": scans[0], "b": scans[1], "c": marked[:, 6:]}
    own = as_files({f"{n}.png": encode_image(Image.fromarray(own)) for n, own in pictures.items()})
    settings = ask("x")
    requests = list_images(own, settings)
    found = read_images(
        own, requests, model, Journal(tmp_path / "j"), settings, DEDUPLICATION
    ).findings
    assert found["same_as"].tolist() == ["", "", "a.png"]


def test_another_image_under_the_same_name_is_another_image(
    model: PackagedModel, tmp_path: Path
) -> None:
    """TRAP: folders of one name, or a file that was replaced."""
    path, settings = tmp_path / "j.jsonl", ask("/a/scans")
    for content in (encode(1), encode(3), encode(1)):
        files = as_files({"scan.png": content})
        requests = list_images(files, settings)
        found = read_images(files, requests, model, Journal(path), settings, DEDUPLICATION).findings
    assert found["same_as"].tolist() == [""]
    assert found["positive_score"][0] == model.predict_bytes(encode(1)).positive_score


def test_similar_cases_are_named_where_they_may_be(tmp_path: Path) -> None:
    cases = pd.DataFrame({"image_id": [f"case {n}" for n in range(12)], "label": "benign"})
    model = load_package(write_tiny_package(tmp_path / "package", cases=cases))
    answer = model.predict_pixels(draw_scan(3))
    assert len(answer.similar) == 5
    assert answer.similar[0].similarity == pytest.approx(answer.similarity)
    assert answer.similar[0].similarity >= answer.similar[4].similarity
    assert json.loads(json.dumps(answer.as_record()))["similar"][0]["label"] == "benign"
    settings = ask("x")
    found = read_images(
        FILES, list_images(FILES, settings), model, Journal(tmp_path / "j"), settings, DEDUPLICATION
    ).findings
    named = found.loc[found["problem"] == "", "similar"]
    assert named.str.fullmatch(r"(case \d+ \(benign\);?){5}").all()
    silent = load_package(write_tiny_package(tmp_path / "silent"))
    assert silent.predict_pixels(draw_scan(3)).similar == ()


def test_threads_of_others_are_given_back(model: PackagedModel, tmp_path: Path) -> None:
    requests = list_images(FILES, ask("x"))
    before = cv2.getNumThreads(), threadpool_info()
    read_images(FILES, requests, model, Journal(tmp_path / "j"), ask("x"), DEDUPLICATION)
    assert (cv2.getNumThreads(), threadpool_info()) == before
