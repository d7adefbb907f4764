"""The DICOM node as a process of its own, beside Orthanc: images in, reports back, none lost."""

import signal
import socket
import ssl
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Iterator
from datetime import date
from pathlib import Path

import pytest
from pydicom import Dataset

from busi_pipeline.pacs.sending import WebArchive
from busi_pipeline.pacs.settings import make_node_settings
from tests.dicom_factories import SECRETS
from tests.factories import find_port
from tests.integration.archives import (
    IS_MISSING,
    TITLE,
    WHY_MISSING,
    StartedArchive,
    start_archive,
)
from tests.integration.nodes import StartedNode, start_node
from tests.pacs_factories import NODE, ask_to_echo, find_items, make_image, send, write_image

needs_orthanc = pytest.mark.skipif(IS_MISSING, reason=WHY_MISSING)


@pytest.fixture(scope="module")
def one_archive() -> Iterator[StartedArchive]:
    with start_archive() as started:
        yield started


@pytest.fixture
def archive(one_archive: StartedArchive) -> StartedArchive:
    one_archive.clear()
    return one_archive


def choose_way(archive: StartedArchive, way: str) -> str:
    return archive.store_address if way == "C-STORE" else archive.web_address


def find_source(result: Dataset) -> str:
    """Return the image that a result is of."""
    if result.Modality == "SR":
        evidence = result.CurrentRequestedProcedureEvidenceSequence[0]
        series = evidence.ReferencedSeriesSequence[0]
        return str(series.ReferencedSOPSequence[0].ReferencedSOPInstanceUID)
    return str(result.SourceImageSequence[0].ReferencedSOPInstanceUID)


def list_errors(made: Dataset, folder: Path) -> list[str]:
    """Return what dciodvfy finds wrong in an object."""
    made.save_as(folder / "made.dcm", enforce_file_format=True)
    finished = subprocess.run(
        ["dciodvfy", "-new", str(folder / "made.dcm")], capture_output=True, text=True, check=False
    )
    assert finished.stderr or finished.stdout
    lines = (finished.stdout + finished.stderr).splitlines()
    return [line for line in lines if line.startswith("Error")]


@needs_orthanc
@pytest.mark.parametrize("way", ["C-STORE", "STOW-RS"])
def test_an_image_comes_back_as_report_and_picture(
    way: str, models: Path, archive: StartedArchive, tmp_path: Path
) -> None:
    image = make_image(1)
    with start_node(models, tmp_path / "spool", choose_way(archive, way)) as node:
        assert send(node.port, [image]) == [0]
        report = archive.read(archive.wait_for("SR", 1)[0])
        picture = archive.read(archive.wait_for("OT", 1)[0])
    for made in (report, picture):
        assert list_errors(made, tmp_path) == []
        assert find_source(made) == image.SOPInstanceUID
        for keyword in ("PatientName", "PatientID", "StudyInstanceUID", "AccessionNumber"):
            assert made[keyword].value == image[keyword].value, keyword
    assert 0 < float(find_items(report, "positive")[0].MeasuredValueSequence[0].NumericValue) < 100
    assert find_items(report, "111030")[0].GraphicType == "POLYLINE"
    assert (picture.Columns, picture.PhotometricInterpretation) == (120, "RGB")
    assert picture.Rows > 100, "a legend stands below"


@needs_orthanc
def test_orthanc_confirms_what_it_stores(archive: StartedArchive) -> None:
    web = WebArchive(make_node_settings(to=archive.web_address))
    for _ in range(2):
        web.send([write_image(1), write_image(2)])
    assert len(archive.find("US")) == 2


@needs_orthanc
def test_orthanc_itself_sends_and_gets_the_answer(models: Path, tmp_path: Path) -> None:
    port = find_port()
    modalities = {"NODE": [NODE, "127.0.0.1", port]}
    with (
        start_archive(DicomModalities=modalities) as archive,
        start_node(models, tmp_path, archive.store_address, "--port", str(port), "--allow", TITLE),
    ):
        archive.client.store_instances([make_image(1)])
        assert archive.send_all_to("NODE") == 200
        archive.wait_for("SR", 1)


def count_waiting(spool: Path) -> int:
    """Return how many images wait, or have results that do."""
    folders = (spool / "images", spool / "results")
    return len({path.name.partition(".")[0] for own in folders for path in own.iterdir()})


@needs_orthanc
@pytest.mark.parametrize("way", ["C-STORE", "STOW-RS"])
def test_a_killed_node_loses_and_doubles_nothing(way: str, models: Path, tmp_path: Path) -> None:
    images = [make_image(number) for number in range(12)]
    spool, port, web_port = tmp_path / "spool", find_port(), find_port()
    to = {
        "C-STORE": f"{TITLE}@127.0.0.1:{port}",
        "STOW-RS": f"http://127.0.0.1:{web_port}/dicom-web",
    }[way]
    with start_node(models, spool, to) as node:
        assert send(node.port, images[:8]) == [0] * 8
        node.wait_for("the archive cannot be reached")
        kill(node)
    assert count_waiting(spool) == 8
    with start_archive(DicomPort=port, HttpPort=web_port) as archive:
        with start_node(models, spool, to) as node:
            node.wait_for("results sent")
            kill(node)
        assert count_waiting(spool) > 0
        with start_node(models, spool, to) as node:
            assert send(node.port, images[4:]) == [0] * 8
            node.wait_for("results sent", 6)
            kill(node)
        check_all_came_once(models, spool, to, archive, images)


def kill(node: StartedNode) -> None:
    node.process.kill()
    node.process.wait()


def check_all_came_once(
    models: Path, spool: Path, to: str, archive: StartedArchive, images: list[Dataset]
) -> None:
    with start_node(models, spool, to) as node:
        archive.wait_for("SR", 12)
        archive.wait_for("OT", 12)
        send(node.port, images)  # and all once more
        node.wait_for("image came again", 12)
        node.process.send_signal(signal.SIGTERM)
        assert node.process.wait(60) == 0
    for modality in ("SR", "OT"):
        sources = Counter(find_source(archive.read(found)) for found in archive.find(modality))
        assert sources == Counter(str(image.SOPInstanceUID) for image in images)
    left = [path for path in spool.rglob("*") if path.is_file()]
    assert {path.name for path in left} <= {"done.sqlite", "lock"}


@needs_orthanc
def test_an_archive_that_was_away_gets_all_of_it(models: Path, tmp_path: Path) -> None:
    port = find_port()
    to = f"{TITLE}@127.0.0.1:{port}"
    with start_node(models, tmp_path, to, "--retry-seconds", "1") as node:
        assert send(node.port, [make_image(1), make_image(2)]) == [0, 0]
        node.wait_for("the archive cannot be reached", 2)
        with start_archive(DicomPort=port) as archive:
            archive.wait_for("SR", 2)
            archive.wait_for("OT", 2)


@needs_orthanc
def test_the_poller_finds_each_image_once(
    models: Path, archive: StartedArchive, tmp_path: Path
) -> None:
    today = date.today().strftime("%Y%m%d")
    images = [make_image(number, StudyDate=today) for number in (1, 2)]
    old = make_image(3, StudyDate="20200101", StudyInstanceUID="1.2.3", SeriesInstanceUID="1.2.4")
    archive.client.store_instances([*images, old])
    options = ["--poll", archive.web_address, "--poll-seconds", "0.3"]
    with start_node(models, tmp_path, archive.web_address, *options) as node:
        archive.wait_for("SR", 2)
        archive.wait_for("OT", 2)
        time.sleep(1.5)
        assert node.count_lines("image taken") == 2
        assert node.count_lines("image came again") == 0
    with start_node(models, tmp_path, archive.web_address, *options) as node:
        time.sleep(1.5)
        assert node.count_lines("image taken") == 0
    sources = {find_source(archive.read(found)) for found in archive.find("SR")}
    assert sources == {str(image.SOPInstanceUID) for image in images}


@needs_orthanc
def test_nothing_of_the_patient_is_logged_or_kept(
    models: Path, archive: StartedArchive, tmp_path: Path
) -> None:
    strange = make_image(2, PatientSex="WEIBLICH", PatientBirthDate="2.7.69 DOE")
    images = [make_image(1), strange, make_image(3, BodyPartExamined="KNEE")]
    with start_node(models, tmp_path, archive.store_address) as node:
        assert send(node.port, images) == [0, 0, 0]
        archive.wait_for("OT", 2)
        node.wait_for("results sent", 2)
        node.wait_for("image of another body part")
        node.process.send_signal(signal.SIGTERM)
        assert node.process.wait(60) == 0
        log = node.log.read_text()
    kept = b"".join(path.read_bytes() for path in tmp_path.rglob("*") if path.is_file())
    names = " ".join(path.name for path in tmp_path.rglob("*"))
    told = [*SECRETS, *(str(image.SOPInstanceUID) for image in images), images[0].StudyInstanceUID]
    assert "WEIBLICH" not in log
    for secret in told:
        assert secret not in log + names, secret
        assert secret.encode() not in kept, secret
    assert log.count('"image taken"') == 3


@pytest.fixture(scope="module")
def certificate(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("tls")
    subprocess.run(
        [
            *("openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "2"),
            *("-subj", "/CN=localhost", "-addext", "subjectAltName=DNS:localhost,IP:127.0.0.1"),
            *("-keyout", str(folder / "key.pem"), "-out", str(folder / "certificate.pem")),
        ],
        check=True,
        capture_output=True,
    )
    return folder


def test_tls_needs_a_certificate_of_the_authority(
    models: Path, certificate: Path, tmp_path: Path
) -> None:
    own, key = str(certificate / "certificate.pem"), str(certificate / "key.pem")
    options = ["--tls-certificate", own, "--tls-key", key, "--tls-ca", own]
    known = ssl.create_default_context(cafile=own)
    known.load_cert_chain(own, key)
    unknown = ssl.create_default_context(cafile=own)
    with start_node(models, tmp_path, "ARCHIVE@127.0.0.1:9", *options) as node:
        with socket.create_connection(("127.0.0.1", node.port)):  # says nothing, holds up nobody
            assert ask_to_echo(node.port, tls=known) == 0
        assert ask_to_echo(node.port, tls=unknown) is None
        assert ask_to_echo(node.port) is None
        assert ask_to_echo(node.port, tls=known) == 0


def test_results_go_over_tls(models: Path, certificate: Path, tmp_path: Path) -> None:
    own, key = str(certificate / "certificate.pem"), str(certificate / "key.pem")
    options = ["--tls-certificate", own, "--tls-key", key, "--tls-ca", own]
    known = ssl.create_default_context(cafile=own)
    known.load_cert_chain(own, key)
    # The archive is another node, to which results are its own.
    with (
        start_node(models, tmp_path / "archive", "NOBODY@127.0.0.1:9", *options) as archive,
        start_node(
            models, tmp_path / "node", f"{NODE}@localhost:{archive.port}", "--to-tls", *options
        ) as node,
    ):
        assert send(node.port, [make_image(1)], tls=known) == [0]
        node.wait_for("results sent")


def test_only_named_callers_are_accepted(models: Path, tmp_path: Path) -> None:
    rejected = {"calling": (1, 1, 3), "called": (1, 1, 7)}
    with start_node(models, tmp_path, "A@127.0.0.1:9", "--allow", "SCANNER") as node:
        assert ask_to_echo(node.port) == 0
        assert ask_to_echo(node.port, calling="STRANGER") == rejected["calling"]
        assert ask_to_echo(node.port, called="ANOTHER") == rejected["called"]
        assert node.count_lines("association rejected") == 2


def test_a_wrong_setting_ends_the_node_in_one_line(models: Path) -> None:
    command = [sys.executable, "-m", "busi_pipeline", "dicom-node", "--models", str(models)]
    finished = subprocess.run(
        [*command, "--to", "A@127.0.0.1:9", "--host", "0.0.0.0"],
        capture_output=True,
        text=True,
        check=False,
    )
    assert finished.returncode == 1
    assert finished.stderr.startswith("Error: --host 0.0.0.0 can be reached from elsewhere")
    assert finished.stderr.count("\n") == 1
