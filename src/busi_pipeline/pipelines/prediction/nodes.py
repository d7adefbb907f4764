"""Ask a packaged model about every image of a folder; nothing stops at one bad file."""

import base64
import hashlib
import json
import logging
from collections import Counter, deque
from collections.abc import Callable, Hashable, Iterator, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from functools import lru_cache, partial
from pathlib import PurePosixPath
from typing import Any, NamedTuple

import cv2
import numpy as np
import pandas as pd
from jinja2 import Environment, PackageLoader, StrictUndefined, select_autoescape
from PIL import Image
from threadpoolctl import threadpool_limits

from busi_pipeline.config.schemas import (
    DatasetSettings,
    DeduplicationSettings,
    PredictionSettings,
    PrivacySettings,
)
from busi_pipeline.config.sites import TABLE_SUFFIXES, is_table, make_name
from busi_pipeline.datasets.journal import Journal
from busi_pipeline.errors import BadInputError
from busi_pipeline.imaging.crops import Window
from busi_pipeline.imaging.decoding import UInt8Array, UnusableImageError, decode_image
from busi_pipeline.imaging.duplicate_matching import (
    align_pictures,
    describe_picture,
    glance_at,
    may_be_one_frame,
)
from busi_pipeline.imaging.overlays import Attribution, draw_finding
from busi_pipeline.imaging.quality import CheckedImage, Quality, check_pixels
from busi_pipeline.imaging.raw_files import RawFiles
from busi_pipeline.imaging.text_cover import cover_text
from busi_pipeline.layouts.tables import read_table
from busi_pipeline.models.onnx_networks import share_cores
from busi_pipeline.models.packaged import READER, REASONS, Answer, PackagedModel
from busi_pipeline.plotting.style import DEMO_BANNER
from busi_pipeline.progress import track

logger = logging.getLogger(__name__)

BOX = [*Window._fields]
_NO_IMAGES = frozenset(
    (*TABLE_SUFFIXES, ".xls", ".txt", ".md", ".json", ".jsonl", ".html", ".pdf", ".xml")
)
# The similarity that no two images of different patients have, at the model's own site or another.
_NEARLY_THE_SAME = 0.97
# Similar images that are compared in detail; images described for it that are kept.
_CANDIDATES, _DESCRIBED = 2, 256
# Images done ahead of the one whose row is written, beside those that are computed.
_AHEAD = 2
# Of the name of a picture with what speaks for and against.
ATTRIBUTION_SUFFIX = "_attribution"
_NOT_THERE = "the table names it, but the folder does not have it"


def list_images(raw_images: RawFiles, prediction: PredictionSettings) -> pd.DataFrame:
    """Return what is asked for, a row an image: `image` (path), a reader's box or empty edges.

    Args:
        raw_images: of the folder, or of the table's folder.
        prediction: `folder` is a folder, whose images are all asked for, or a table: CSV or XLSX
            with `image`, its path from there, and where known `left`, `top`, `right`, `bottom`,
            in pixels.

    Raises BadInputError where there is nothing to ask for, or the table has no `image`.
    """
    if prediction.folder is not None and is_table(prediction.folder):
        requests = read_table(raw_images, PurePosixPath(prediction.folder).name, ["image"], BOX)
        for edge in BOX:
            if edge not in requests:
                requests[edge] = ""
        requests = requests[["image", *BOX]]
    else:
        paths = [*raw_images, *raw_images.unusable]
        images = [p for p in paths if PurePosixPath(p).suffix.lower() not in _NO_IMAGES]
        if left := len(paths) - len(images):
            logger.info("%d files that are no images left out", left)
        requests = pd.DataFrame({"image": sorted(images)}).assign(**dict.fromkeys(BOX, ""))
    if requests.empty:
        raise BadInputError(f"no images in {prediction.folder}: name a folder that has some.")
    return requests


class Findings(NamedTuple):
    """The answers: the same table for two files, and what they rest on.

    Attributes:
        findings: one row an image, see `read_images`.
        findings_parquet: the same.
        attribution: one row an image whose model has some: `number`, the row of the findings;
            `image`; `attribution`, JSON: base64 of float16 maps, their shape (windows, h, w), and
            the windows of the image that they are of.
    """

    findings: pd.DataFrame
    findings_parquet: pd.DataFrame
    attribution: pd.DataFrame


class _Done(NamedTuple):
    """A request that was done.

    Attributes:
        key: of the answer in the journal; "" where the file cannot be read.
        byte_sha256: of the file.
        record: the answer, for the journal; None where it has it, or there is none.
        problem: why the file cannot be read.
    """

    key: str
    byte_sha256: str
    record: dict[str, Any] | None
    problem: str


def read_images(
    raw_images: RawFiles,
    requests: pd.DataFrame,
    model: PackagedModel,
    journal: Journal,
    prediction: PredictionSettings,
    deduplication: DeduplicationSettings,
) -> Findings:
    """Return the model's answers, one row a request, in their order.

    `image`, its path; `problem`, "" or why the file cannot be used, then all else is empty;
    `flagged`, `refer` and `reasons` (`;` between them); `positive_score`, `threshold`,
    `expected_sensitivity`, `p_<class>`; `left`, `top`, `right`, `bottom`, `box_source`,
    `confidence`; `distance`, `similarity`, the qualities; `width`, `height`; `device`, where a
    DICOM header names it; `byte_sha256`; `same_as`, an earlier image that is the same or a copy;
    `similar`, images learned from, where they may be shown; `model`, `model_version`,
    `schema_version`.

    Answers that the journal has, of the same model on the same bytes with the same box, are taken
    from there.
    """
    rows, kept = [], 0
    batch = make_name(prediction.folder or "")
    seen = _Seen(model, journal, batch, raw_images, deduplication)
    wanted = requests.to_dict("records")
    done = _do_ahead(raw_images, wanted, model, journal)
    for request, own in track(
        zip(wanted, done, strict=True), "images read", "image", total=len(wanted)
    ):
        path = request["image"]
        device = raw_images.attributes.get(path, {}).get("device", "")
        if own.problem:
            rows.append({"image": path, "problem": own.problem, "device": device})
            continue
        if own.record is None or own.key in journal:
            kept += 1
        else:
            named = {"batch": batch, "image": path, "byte_sha256": own.byte_sha256}
            journal.add(own.key, own.record | named)
        record = journal[own.key]
        named = {"image": path, "device": device, "same_as": seen.find(record, batch, path)}
        rows.append(record | named)
    findings = pd.DataFrame(rows, columns=_list_columns(model))
    texts = ["problem", "reasons", "box_source", "device", "byte_sha256", "same_as", "similar"]
    texts += ["model", "model_version"]
    findings[texts] = findings[texts].fillna("")
    findings = findings.astype(
        dict.fromkeys(["flagged", "refer"], "boolean")
        | dict.fromkeys(["width", "height", "schema_version"], "Int64")
    )
    _log(findings, model, kept)
    return Findings(findings, findings, _list_attribution(rows))


def _list_attribution(rows: list[dict[str, Any]]) -> pd.DataFrame:
    table = pd.DataFrame(rows, columns=["image", "attribution"]).fillna("")
    table.insert(0, "number", np.arange(len(rows)))
    return table[table["attribution"] != ""].reset_index(drop=True)


class _Seen:
    """Images that this model was asked about before, in this folder or another."""

    def __init__(
        self,
        model: PackagedModel,
        journal: Journal,
        batch: str,
        raw_images: RawFiles,
        deduplication: DeduplicationSettings,
    ):
        self._limit = model.limits.similarity
        self._batch, self._raw_images, self._settings = batch, raw_images, deduplication
        self._glance = lru_cache(_DESCRIBED)(lambda image: glance_at(self._read(image)))
        self._describe = lru_cache(_DESCRIBED)(
            lambda image: describe_picture(
                self._read(image), deduplication.longest_side, deduplication.keypoints
            )
        )
        self._numbers: dict[tuple[str, str, str], int] = {}
        self._names: list[tuple[str, str]] = []
        self._hashes: dict[str, int] = {}
        self._looks = np.empty((0, model.components), np.float32)
        for _, record in journal.items():
            if record.get("model_version") == model.version:
                self._number((record["batch"], record["image"]), record)

    def _number(self, name: tuple[str, str], record: Mapping[str, Any]) -> int:
        """Return the number of an image, in the order in which they came."""
        key = (*name, record["byte_sha256"])
        if key not in self._numbers:
            count = len(self._names)
            if count == len(self._looks):
                self._looks = np.resize(self._looks, (2 * count + 64, self._looks.shape[1]))
            self._looks[count] = _read_look(record["look"])
            self._numbers[key] = count
            self._names.append(name)
            self._hashes.setdefault(record["byte_sha256"], count)
        return self._numbers[key]

    def find(self, record: Mapping[str, Any], batch: str, image: str) -> str:
        """Return the name of an earlier image that is the same, or a copy; "" for none.

        One of another folder has the folder's name before it.
        """
        if record["problem"]:
            return ""
        own = self._number((batch, image), record)
        earlier: int | None = self._hashes[record["byte_sha256"]]
        if earlier == own:
            earlier = self._find_copy(own)
        if earlier is None:
            return ""
        its_batch, its_image = self._names[earlier]
        return its_image if its_batch == batch else f"{its_batch}: {its_image}"

    def _find_copy(self, own: int) -> int | None:
        """Return the number of an earlier image of which this is a copy.

        Images of another site are more alike to the network than those that its limit was set on.
        So of the most similar ones in the same folder the fine detail decides, as in deduplication;
        of other folders, whose files are not at hand, only one that is nearly the same counts.
        """
        alike = self._looks[:own] @ self._looks[own]
        for number in np.argsort(-alike, kind="stable")[:_CANDIDATES].tolist():
            if alike[number] <= self._limit:
                return None
            if alike[number] > _NEARLY_THE_SAME:
                return int(number)
            batch, image = self._names[number]
            if batch == self._batch and self._is_one_frame(image, self._names[own][1]):
                return int(number)
        return None

    def _is_one_frame(self, image: str, other: str) -> bool:
        if image not in self._raw_images or other not in self._raw_images:
            return False
        if not may_be_one_frame(self._glance(image), self._glance(other)):
            return False
        settings = self._settings
        found = align_pictures(
            self._describe(image), self._describe(other), settings.min_inliers, settings.min_shared
        )
        return bool(found.correlation >= settings.same_frame)

    def _read(self, image: str) -> UInt8Array:
        return decode_image(self._raw_images[image]()).pixels


def _read_look(text: str) -> np.ndarray:
    return np.frombuffer(base64.b64decode(text), np.float16).astype(np.float32)


def _list_columns(model: PackagedModel) -> list[str]:
    return [
        *("image", "problem", "flagged", "refer", "reasons", "positive_score", "threshold"),
        *("expected_sensitivity", *(f"p_{name}" for name in model.description["classes"])),
        *(*BOX, "box_source", "confidence", "distance", "similarity", *Quality._fields),
        *("width", "height", "device", "byte_sha256", "same_as", "similar"),
        *("model", "model_version", "schema_version"),
    ]


def _ask(model: PackagedModel, image: CheckedImage, box: list[str] | None) -> dict[str, Any]:
    """Return what the journal keeps of an answer."""
    try:
        answer = model.predict_image(image, box)
    except UnusableImageError as error:  # a box that lies outside
        return {"problem": str(error)}
    return _flatten(answer)


def _flatten(answer: Answer) -> dict[str, Any]:
    record = answer.as_record()
    shares = {f"p_{name}": share for name, share in record.pop("probabilities").items()}
    box = record.pop("box")
    edges = dict(zip(BOX, box, strict=True)) if box else {}
    quality = record.pop("quality")
    similar = [f"{c['image_id']} ({c['label']})" for c in record.pop("similar")]
    look = base64.b64encode(np.array(answer.look, np.float16).tobytes()).decode()
    record |= {"similar": ";".join(similar), "look": look}
    record |= {"attribution": _pack_attribution(answer.attribution)}
    return record | shares | edges | quality | {"problem": "", "reasons": ";".join(answer.reasons)}


def _do_ahead(
    raw_images: RawFiles, wanted: list[dict[Hashable, Any]], model: PackagedModel, journal: Journal
) -> Iterator[_Done]:
    """Yield what becomes of each request, in order; some are done at the same time."""
    waiting: deque[Future[_Done]] = deque()
    with ThreadPoolExecutor(share_cores().images) as pool, _leave_cores_to_images():
        for request in wanted:
            waiting.append(pool.submit(_do, raw_images, request, model, journal))
            if len(waiting) > share_cores().images + _AHEAD:
                yield waiting.popleft().result()
        while waiting:
            yield waiting.popleft().result()


@contextmanager
def _leave_cores_to_images() -> Iterator[None]:
    """Keep OpenCV and BLAS to one thread: theirs would wait for cores that images are on."""
    before = cv2.getNumThreads()
    cv2.setNumThreads(1)
    try:
        with threadpool_limits(1, user_api="blas"):
            yield
    finally:
        cv2.setNumThreads(before)


def _do(
    raw_images: RawFiles, request: Mapping[Any, Any], model: PackagedModel, journal: Journal
) -> _Done:
    path = request["image"]
    if path not in raw_images:
        return _Done("", "", None, raw_images.unusable.get(path, _NOT_THERE))
    box = [request[edge] for edge in BOX]
    drawn = box if any(str(edge).strip() for edge in box) else None
    try:
        content = raw_images[path]()
        byte_sha256 = hashlib.sha256(content).hexdigest()
        described = json.dumps([model.version, byte_sha256, drawn])
        key = hashlib.sha256(described.encode()).hexdigest()
        if key in journal:
            return _Done(key, byte_sha256, None, "")
        image = check_pixels(decode_image(content).pixels)
    except UnusableImageError as error:
        return _Done("", "", None, str(error))
    except OSError as error:
        return _Done("", "", None, f"it cannot be read: {error.strerror or error}")
    return _Done(key, byte_sha256, _ask(model, image, drawn), "")


def _log(findings: pd.DataFrame, model: PackagedModel, kept: int) -> None:
    usable = findings[findings["problem"] == ""]
    logger.info(
        "%s (%s): %d images, %d flagged for review, %d referred to a reader; %d cannot be used; "
        "%d answers taken from an earlier run",
        model.name,
        model.version,
        len(findings),
        int(usable["flagged"].sum()),
        int(usable["refer"].sum()),
        len(findings) - len(usable),
        kept,
    )
    reasons = Counter(code for codes in usable["reasons"] for code in codes.split(";") if code)
    for code, count in reasons.most_common():
        logger.info("referred: %d, since %s", count, REASONS[code])


def draw_overlays(
    raw_images: RawFiles,
    findings: pd.DataFrame,
    attribution: pd.DataFrame,
    privacy: PrivacySettings,
) -> dict[str, Callable[[], Image.Image]]:
    """Return {file name: function that draws it}: each image with the box that was looked at.

    Args:
        raw_images: the images.
        findings: of `read_images`.
        attribution: of `read_images`; each image that has some is drawn a second time, with it.
        privacy: whether burned-in text is smoothed away.
    """
    usable = findings[findings["problem"] == ""]

    @lru_cache(1)  # the two pictures of an image are drawn one after the other
    def read(image: str) -> UInt8Array:
        pixels = decode_image(raw_images[image]()).pixels
        return cover_text(pixels) if privacy.cover_text else pixels

    drawn: dict[str, Callable[[], Image.Image]] = {}
    maps = attribution.set_index("number")["attribution"].to_dict()
    for number, finding in zip(usable.index, usable.to_dict("records"), strict=True):
        name = name_overlay(int(str(number)))
        draw = partial(_draw_overlay, read, finding)
        drawn[name] = draw
        if own := maps.get(number):
            drawn[name + ATTRIBUTION_SUFFIX] = partial(draw, own)
    return drawn


def name_overlay(number: int) -> str:
    """Return the name of the picture of a row of the findings, without its suffix."""
    return f"{number + 1:06d}"


def _draw_overlay(
    read: Callable[[str], UInt8Array], finding: Mapping[Any, Any], attribution: str | None = None
) -> Image.Image:
    edges = [finding[edge] for edge in BOX]
    drawn = draw_finding(
        read(finding["image"]),
        None if pd.isna(edges).any() else Window(*edges),
        finding["box_source"] == READER,
        None if attribution is None else _unpack_attribution(attribution),
    )
    return Image.fromarray(drawn)


def _pack_attribution(attribution: Attribution | None) -> str:
    """Return attribution as a line of JSON; "" for none."""
    if attribution is None:
        return ""
    maps = base64.b64encode(attribution.maps.astype("<f2").tobytes()).decode()
    windows = [[round(edge, 1) for edge in window] for window in attribution.windows]
    return json.dumps({"shape": attribution.maps.shape, "maps": maps, "windows": windows})


def _unpack_attribution(text: str) -> Attribution:
    record = json.loads(text)
    maps = np.frombuffer(base64.b64decode(record["maps"]), "<f2").reshape(record["shape"])
    return Attribution(maps.astype(np.float32), tuple(Window(*own) for own in record["windows"]))


def write_sheet(
    findings: pd.DataFrame,
    attribution: pd.DataFrame,
    model: PackagedModel,
    dataset: DatasetSettings,
) -> str:
    """Return a page with every image, its answer, and keys to go from one to the next.

    First what is flagged, from the highest score on, then what is referred, then the rest, and at
    the end what cannot be used. The pictures lie beside the page, in `overlays`.
    """
    environment = Environment(
        loader=PackageLoader(__package__),
        autoescape=select_autoescape(default=True),
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    rows = findings.assign(
        overlay=[name_overlay(number) for number in range(len(findings))],
        has_attribution=findings.index.isin(attribution["number"]),
        order=np.select(
            [
                findings["problem"] != "",
                findings["flagged"].fillna(False),
                findings["refer"].fillna(False),
            ],
            [3, 0, 1],
            2,
        ),
    ).sort_values(["order", "positive_score"], ascending=[True, False], kind="stable")
    return environment.get_template("sheet.html.j2").render(
        rows=rows.to_dict("records"),
        counts=rows["order"].value_counts().to_dict(),
        model=model.description,
        version=model.version,
        classes=model.description["classes"],
        reasons=REASONS,
        attribution_suffix=ATTRIBUTION_SUFFIX,
        banner=DEMO_BANNER if dataset.synthetic else "",
    )
