"""The page shows an answer after the reader's own read is on record, and to nobody else."""

import csv
import io
import json
import re
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import httpx2 as httpx
import numpy as np
import pytest
from fastapi.testclient import TestClient
from PIL import Image

from busi_pipeline.errors import BadInputError
from busi_pipeline.models.ledger import CHAMPION, PREVIOUS
from busi_pipeline.serving.page.readings import Readings, read_truths
from busi_pipeline.serving.page.sessions import Case, Sessions
from busi_pipeline.serving.problems import RequestError
from busi_pipeline.serving.settings import make_settings
from busi_pipeline.stats.classes import Classes
from tests.dicom_factories import make_dicom, write_dicom
from tests.factories import encode_image
from tests.package_factories import write_tiny_package
from tests.serving_factories import BRIGHT, SCAN, THRESHOLDS, give_roles, serve, write_model

KEY = "0123456789abcdef"
BOX = {"left": "10", "top": "12", "right": "50", "bottom": "40"}


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Models in a folder of their own, so that what readers say is of one test."""
    write_tiny_package(tmp_path / "06_models" / "tiny" / "package", locates=True)
    return tmp_path / "06_models"


@pytest.fixture
def client(folder: Path) -> Iterator[TestClient]:
    with serve(folder) as (client, _):
        sign_in(client)
        yield client


def sign_in(client: TestClient, reader: str = "Reader A", **fields: str) -> httpx.Response:
    return client.post("/page/session", data={"reader": reader, **fields})


def open_scan(client: TestClient, content: bytes = SCAN, name: str = "a.png") -> str:
    """Return the address of a new case."""
    shown = client.post("/page/cases", files={"files": (name, content)})
    assert shown.status_code == 200, shown.text
    return shown.url.path


def read(client: TestClient, case: str, category: str = "3", **fields: str) -> httpx.Response:
    return client.post(f"{case}/read", data={"birads": category, **fields})


def decide(client: TestClient, case: str, category: str) -> httpx.Response:
    return client.post(f"{case}/decision", data={"birads": category})


def list_events(folder: Path) -> list[dict[str, Any]]:
    path = folder.parent / "07_model_output" / "readings.jsonl"
    return [json.loads(line) for line in path.read_text().splitlines()]


def find_problem(shown: httpx.Response) -> str:
    found = re.search(r'<p class="notice" role="alert">(.*?)</p>', shown.text, re.DOTALL)
    assert found, shown.text
    return found[1]


def test_nothing_of_the_answer_is_there_before_the_read(client: TestClient, folder: Path) -> None:
    case = open_scan(client)
    shown = client.get(case).text
    assert "What the model says" not in shown
    assert "lagged" not in shown
    assert "attribution" not in shown
    assert client.get(f"{case}/attribution.png").status_code == 404
    asked = client.post(f"{case}/answer", data=BOX)
    assert asked.status_code == 409
    assert find_problem(asked) == "the answer shows after your own read is on record"
    assert client.post(f"{case}/decision", data={"birads": "2"}).status_code == 409
    assert not (folder.parent / "07_model_output").exists()


def test_read_answer_and_decision_are_on_record_in_this_order(
    client: TestClient, folder: Path
) -> None:
    case = open_scan(client)
    shown = read(client, case, "4A", **BOX)
    assert "What the model says" in shown.text
    shown = client.post(f"{case}/decision", data={"birads": "2"})
    assert "On record: you changed BI-RADS 4A to 2." in shown.text
    first, answer, decision = list_events(folder)
    assert [first["event"], answer["event"], decision["event"]] == ["read", "answer", "decision"]
    assert (first["birads"], first["box"], first["blinded"]) == ("4A", "10,12,50,40", True)
    assert (answer["flagged"], answer["box_source"]) == (False, "localizer")
    assert decision["birads"] == "2"
    assert {event["reader"] for event in (first, answer, decision)} == {"Reader A"}
    assert "a.png" not in json.dumps([first, answer, decision]), "a name can be a patient's"


def test_what_is_on_record_is_not_changed(client: TestClient, folder: Path) -> None:
    case = open_scan(client)
    read(client, case, "2")
    assert read(client, case, "5").status_code == 409
    assert read(client, case, "2", **BOX).status_code == 409
    decide(client, case, "2")
    assert decide(client, case, "5").status_code == 409
    assert [event.get("birads") for event in list_events(folder)] == ["2", None, "2"]


def test_a_button_that_is_pressed_twice_does_once(client: TestClient, folder: Path) -> None:
    case = open_scan(client)
    for _ in range(2):
        assert "What the model says" in read(client, case, "2").text
    for _ in range(2):
        assert "On record: you keep BI-RADS 2." in decide(client, case, "2").text
    assert [event["event"] for event in list_events(folder)] == ["read", "answer", "decision"]


def test_two_windows_get_one_answer(folder: Path) -> None:
    with serve(folder) as (client, _), ThreadPoolExecutor(8) as pool:
        sign_in(client)
        case = open_scan(client)
        client.post(f"{case}/read", data={"birads": "2"}, follow_redirects=False)
        shown = list(pool.map(lambda _: client.get(case), range(8)))
        assert {own.status_code for own in shown} == {200}
    assert [event["event"] for event in list_events(folder)] == ["read", "answer"]


def test_an_undecided_read_goes_on_in_another_session(client: TestClient, folder: Path) -> None:
    first = open_scan(client)
    read(client, first, "4A", **BOX)
    sign_in(client, "reader a")
    case = open_scan(client)
    assert case == first
    assert "Your read before the answer: BI-RADS 4A." in client.get(case).text
    assert open_scan(client) == case, "also twice"
    decide(client, case, "3")
    answers = [event["event"] for event in list_events(folder)]
    assert answers == ["read", "answer", "answer", "decision"]
    assert open_scan(client) != first, "it is decided"
    sign_in(client, "Reader B")
    assert "Your read" in client.get(open_scan(client)).text


def test_no_answer_shows_where_the_read_cannot_be_kept(folder: Path) -> None:
    file = folder / "readings" / "readings.jsonl"
    with serve(folder, readings=file) as (client, _):
        sign_in(client)
        file.parent.write_text("in the way")
        case = open_scan(client)
        shown = read(client, case)
        assert shown.status_code == 503
        assert "cannot be kept" in find_problem(shown)
        assert "--readings" in find_problem(shown)
        assert "What the model says" not in client.get(case).text


def test_the_answer_follows_the_box(client: TestClient) -> None:
    case = open_scan(client)
    read(client, case)
    script = {"x-asked-by": "script"}
    own = client.post(f"{case}/answer", headers=script, data={})
    boxed = client.post(f"{case}/answer", headers=script, data=BOX)
    assert "<html" not in boxed.text
    assert "the box that the model found" in own.text
    assert "Asked about your box." in boxed.text
    assert re.findall(r"<strong>.*?</strong>", own.text) != re.findall(
        r"<strong>.*?</strong>", boxed.text
    )
    pictures = [client.get(f"{case}/attribution.png", params=box) for box in ({}, BOX)]
    assert [picture.headers["content-type"] for picture in pictures] == ["image/png"] * 2
    assert pictures[0].content != pictures[1].content
    without_script = client.post(f"{case}/answer", data=BOX)
    assert "Asked about your box." in without_script.text
    assert 'value="12"' in without_script.text


def test_a_model_of_whole_images_is_not_asked_about_boxes(tmp_path: Path) -> None:
    write_tiny_package(tmp_path / "06_models" / "tiny" / "package")
    with serve(tmp_path / "06_models") as (client, _):
        sign_in(client)
        case = open_scan(client, BRIGHT)
        shown = read(client, case, "4A", **BOX).text
        assert "The model looks at the whole image." in shown
        assert "Flagged for review" in shown
        assert "of 100 flagged images, about" in shown
        assert "Ask about another box" not in shown
        assert 'class="automatic"' not in shown


def test_a_box_outside_the_image_is_refused_in_a_line(client: TestClient) -> None:
    case = open_scan(client)
    shown = read(client, case, **BOX | {"right": "900"})
    assert shown.status_code == 422
    assert "a box is left, top, right and bottom in pixels" in find_problem(shown)
    assert "Your read" in client.get(case).text, "nothing is on record"


@pytest.mark.parametrize("category", ["", "6", "4", "<b>"])
def test_a_category_that_is_none_is_refused(category: str, client: TestClient) -> None:
    shown = read(client, open_scan(client), category)
    assert shown.status_code == 422
    assert "choose a BI-RADS category" in find_problem(shown)


def test_a_second_read_of_a_file_is_not_blinded(client: TestClient, folder: Path) -> None:
    same = encode_image(Image.open(io.BytesIO(SCAN)), "BMP")
    for category, content in (("2", SCAN), ("5", SCAN), ("3", same)):
        case = open_scan(client, content)
        read(client, case, category)
        decide(client, case, category)
    assert "You have seen an answer on this file before" in client.get(open_scan(client)).text
    reads = [event for event in list_events(folder) if event["event"] == "read"]
    assert [event["blinded"] for event in reads] == [True, False, False]
    with serve(folder) as (again, _):  # also after a restart, and in other letters
        sign_in(again, "READER a")
        assert "You have seen an answer" in again.get(open_scan(again)).text
        sign_in(again, "Reader B")
        assert "You have seen an answer" not in again.get(open_scan(again)).text


def test_an_answer_in_another_window_ends_the_blinding(client: TestClient, folder: Path) -> None:
    first, second = open_scan(client), open_scan(client)
    read(client, first)
    decide(client, first, "3")
    read(client, second)
    reads = [event for event in list_events(folder) if event["event"] == "read"]
    assert [event["blinded"] for event in reads] == [True, False]


def test_the_table_counts_changes_and_whether_they_were_right(folder: Path) -> None:
    truth = folder.parent / "truth.csv"
    with serve(folder, truth=truth, results=True) as (client, _):
        sign_in(client)
        for content, first, final in ((SCAN, "3", "4B"), (BRIGHT, "4A", "4A")):
            case = open_scan(client, content)
            read(client, case, first)
            client.post(f"{case}/decision", data={"birads": final})
        hashes = list(dict.fromkeys(event["byte_sha256"] for event in list_events(folder)))
        truth.write_text(f"byte_sha256,label\n{hashes[0]},malignant\n{hashes[1]},benign\n")
        shown = client.get("/page/readers").text
        row = re.findall(r"<t[dh][^>]*>([^<]*)</t[dh]>", shown.split("<tbody>")[1])
        assert row[0] == "Reader A"
        assert row[2:11] == ["2", "0", "1", "1", "1", "0", "1", "0", "0"]
        assert row[11:] == ["0", "0 → 1 / 1", "0 → 0 / 1"]
        truth.write_text(f"byte_sha256,label\n{hashes[0]},cancer\n")
        refused = client.get("/page/readers")
        assert refused.status_code == 503
        assert "line 2: label must be one of benign, malignant, normal" in find_problem(refused)


def test_a_bad_file_is_named_and_the_others_open(client: TestClient) -> None:
    files = [("files", ("bad.png", b"none")), ("files", ("good.png", SCAN))]
    shown = client.post("/page/cases", files=files)
    assert re.search("<li>bad.png: [^<]*no image format was recognised", shown.text)
    assert "good.png</a>" in shown.text
    assert "bad.png" not in client.get("/page/").text, "it is said once"
    none = client.post("/page/cases", files={"files": ("", b"")})
    assert "choose at least one file" in none.text


def test_names_are_text_and_never_markup(client: TestClient, folder: Path) -> None:
    bad = "<img src=x onerror=alert(1)>"
    sign_in(client, bad)
    case = open_scan(client, name=f'"{bad}.png')
    read(client, case)
    decide(client, case, "3")
    for path in (case, "/page/"):
        shown = client.get(path).text
        assert "&lt;img src=x" in shown
        assert "<img src=x" not in shown
    policy = client.get(case).headers["content-security-policy"]
    assert "script-src 'self';" in policy
    assert "unsafe" not in policy


def test_no_script_or_style_stands_within_the_page(client: TestClient) -> None:
    case = open_scan(client)
    read(client, case, **BOX)
    for path in (case, "/page/", "/page/model"):
        shown = client.get(path).text
        assert re.findall(r"<script[^>]*>", shown) == ['<script src="/page/static/page.js" defer>']
        assert not re.search(r"<style| style=| on\w+=|https?://", shown)


@pytest.mark.parametrize(
    "headers",
    [
        {"origin": "null"},
        {"origin": "http://127.0.0.1:81"},
        {"origin": "https://elsewhere.example"},
        {"sec-fetch-site": "cross-site"},
        {"sec-fetch-site": "same-site"},
    ],
)
def test_forms_of_other_sites_are_refused(headers: dict[str, str], client: TestClient) -> None:
    case = open_scan(client)
    for path, data in ((f"{case}/read", {"birads": "2"}), ("/page/session/end", {})):
        assert client.post(path, data=data, headers=headers).status_code == 403
    assert "Your read" in client.get(case).text


def test_cases_are_of_their_session_alone(folder: Path) -> None:
    with serve(folder) as (client, _), TestClient(client.app, "http://127.0.0.1") as other:
        sign_in(client)
        sign_in(other, "Reader B")
        case = open_scan(client)
        read(client, case)
        for path in (case, f"{case}/picture.png", f"{case}/attribution.png"):
            assert client.get(path).status_code == 200
            assert other.get(path).status_code == 404
        assert decide(other, case, "3").status_code == 404
        assert case not in other.get("/page/").text


def test_a_session_that_is_gone_is_said(client: TestClient) -> None:
    case = open_scan(client)
    cookie = client.cookies["busi_session"]
    client.post("/page/session/end")
    client.cookies.set("busi_session", cookie, domain="127.0.0.1", path="/page")
    shown = read(client, case)
    assert shown.url.path == "/page/"
    assert "Your session has ended. What was on record is kept." in find_problem(shown)
    script = client.post(f"{case}/answer", headers={"x-asked-by": "script"})
    assert script.status_code == 401
    assert script.text.startswith("Your session has ended.")
    for path in ("/page/readers", "/page/readings.csv"):
        assert "Sign in" in client.get(path).text, "before it says that there are no results"


def test_a_reader_who_stays_away_is_signed_out(folder: Path) -> None:
    with serve(folder, session_minutes=1e-6) as (client, _):
        assert "Your name" in sign_in(client).text


def test_with_a_key_the_page_asks_for_it(folder: Path) -> None:
    with serve(folder, api_key=KEY) as (client, _):
        assert 'name="key"' in client.get("/").text
        wrong = sign_in(client, key="x")
        assert (wrong.status_code, find_problem(wrong)) == (401, "the key is wrong")
        assert "busi_session" not in client.cookies
        assert "Images" in sign_in(client, key=KEY).text
        assert client.get("/v1/model").status_code == 401, "a session is no key"
        cookie = client.post(
            "/page/session",
            data={"reader": "a", "key": KEY},
            headers={"x-forwarded-proto": "https"},
            follow_redirects=False,
        ).headers["set-cookie"]
        for attribute in ("HttpOnly", "SameSite=strict", "Secure", "Path=/page"):
            assert attribute in cookie


def test_without_a_name_nobody_signs_in(client: TestClient) -> None:
    client.post("/page/session/end")
    shown = sign_in(client, " \t ")
    assert (shown.status_code, find_problem(shown)[:12]) == (422, "enter a name")


def test_the_service_can_be_without_the_page(folder: Path) -> None:
    with serve(folder, page=False, api_key=KEY) as (client, _):
        for path in ("/", "/page/", "/page/static/page.js"):
            assert client.get(path).status_code == 401
            assert client.get(path, headers={"x-api-key": KEY}).status_code == 404


def test_the_worklist_shows_its_images_and_nothing_else(folder: Path, tmp_path: Path) -> None:
    work = tmp_path / "work"
    (work / "inside").mkdir(parents=True)
    for name in ("scan 10.png", "scan 2.png", "inside/b.PNG", ".hidden.png"):
        (work / name).write_bytes(SCAN)
    (work / "notes.txt").write_text("no image")
    (work / "broken.png").write_bytes(b"none")
    (tmp_path / "secret.png").write_bytes(SCAN)
    (work / "link.png").symlink_to(tmp_path / "secret.png")
    (work / "gone.png").symlink_to(tmp_path / "nowhere.png")
    (work / "loop").symlink_to(work)
    frame = np.random.default_rng(0).integers(0, 255, (80, 90), np.uint8)
    (work / "IM0001").write_bytes(write_dicom(make_dicom([frame])))
    with serve(folder, worklist=work) as (client, _):
        sign_in(client)
        shown = client.get("/page/").text
        found = re.findall(r'action="(/page/worklist/\w+)"><button class="link">([^<]*)', shown)
        assert [name for _, name in found] == [
            "broken.png",
            "IM0001",
            "inside/b.PNG",
            "scan 2.png",
            "scan 10.png",
        ]
        paths = {name: path for path, name in found}
        case = client.post(paths["scan 2.png"]).url.path
        assert client.post(paths["scan 2.png"]).url.path == case, "it is open already"
        broken = client.post(paths["broken.png"]).text
        assert re.search("<li>broken.png: [^<]*no image format was recognised", broken)
        (work / "scan 2.png").write_bytes(BRIGHT)
        assert client.post(paths["scan 2.png"]).url.path == case, "the image that was listed"
        listed = client.get("/page/").text
        written = re.search(r'worklist/(\w+)"><button class="link">scan 2', listed)
        assert written is not None
        assert client.post(f"/page/worklist/{written[1]}").url.path != case, "the next patient's"
        read(client, case, "2")
        sign_in(client, "reader A")
        (work / "scan 2.png").unlink()
        assert client.post(f"/page/worklist/{written[1]}").status_code == 404
        for key in ("nothing", "..%2f..%2fsecret.png"):
            assert client.post(f"/page/worklist/{key}").status_code == 404
    with (
        pytest.raises(Exception, match=r"--worklist .* is no folder"),
        serve(folder, worklist=work / "none"),
    ):
        pass


def test_the_export_has_every_event_and_no_formula(folder: Path) -> None:
    with serve(folder, results=True) as (client, _):
        sign_in(client, "=1+1")
        case = open_scan(client)
        read(client, case, "4C")
        decide(client, case, "4C")
        sent = client.get("/page/readings.csv")
    rows = list(csv.DictReader(io.StringIO(sent.text)))
    assert [row["event"] for row in rows] == ["read", "answer", "decision"]
    assert {row["reader"] for row in rows} == {"'=1+1"}
    assert "attachment" in sent.headers["content-disposition"]


def test_the_worklist_says_what_was_read_before(folder: Path, tmp_path: Path) -> None:
    (tmp_path / "work").mkdir()
    (tmp_path / "work" / "a.png").write_bytes(SCAN)
    with serve(folder, worklist=tmp_path / "work") as (client, _):
        sign_in(client)
        found = re.search(r'action="(/page/worklist/\w+)"', client.get("/page/").text)
        assert found is not None
        case = client.post(found[1]).url.path
        assert "not read yet" in client.get("/page/").text
        read(client, case)
        sign_in(client)
        assert "read before" in client.get("/page/").text
        sign_in(client, "Reader B")
        assert "read before" not in client.get("/page/").text


def test_results_do_not_show_while_readers_read(client: TestClient) -> None:
    case = open_scan(client)
    read(client, case)
    decide(client, case, "3")
    for path in ("/page/readers", "/page/readings.csv"):
        sent = client.get(path)
        assert (sent.status_code, find_problem(sent)[:21]) == (403, "results are not shown")
    assert "/page/readers" not in client.get("/page/").text


def test_an_image_can_be_closed_unless_it_waits_for_a_decision(client: TestClient) -> None:
    case = open_scan(client)
    assert client.post(f"{case}/close").url.path == "/page/"
    assert client.get(case).status_code == 404
    case = open_scan(client)
    read(client, case)
    assert client.post(f"{case}/close").status_code == 409
    decide(client, case, "3")
    client.post(f"{case}/close")
    assert client.get(case).status_code == 404


def test_a_loop_of_images_says_which_one_shows(client: TestClient, folder: Path) -> None:
    frames = list(np.random.default_rng(0).integers(0, 255, (5, 80, 90), np.uint8))
    case = open_scan(client, write_dicom(make_dicom(frames)), "a.dcm")
    assert "Frame 3 of 5, the middle one." in client.get(case).text
    read(client, case)
    event = list_events(folder)[0]
    assert (event["frame"], event["width"], event["height"]) == (3, 90, 80)


def test_names_of_readers_are_kept_apart_and_whole(client: TestClient, folder: Path) -> None:
    for reader in ("A. Smith/Radiology", "B. Jones/Radiology", "Zoe\u0308", "Zo\u00eb"):
        sign_in(client, reader)
        case = open_scan(client)
        read(client, case)
        decide(client, case, "3")
    reads = [event for event in list_events(folder) if event["event"] == "read"]
    names = ["A. Smith/Radiology", "B. Jones/Radiology", "Zo\u00eb", "Zo\u00eb"]
    assert [event["reader"] for event in reads] == names
    assert [event["blinded"] for event in reads] == [True, True, True, False]


def test_what_a_flag_means_is_said_where_it_was_measured(client: TestClient) -> None:
    case = open_scan(client)
    assert "The test had none." in read(client, case).text
    boxed = client.post(f"{case}/answer", data=BOX).text
    assert "measured with the model&#39;s own boxes" in boxed or "model's own boxes" in boxed
    assert "The flag finds" not in boxed


def test_without_room_on_disk_no_answer_shows(
    client: TestClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    case = open_scan(client)
    monkeypatch.setattr("os.write", lambda file, content: len(content) - 1)
    shown = read(client, case)
    assert shown.status_code == 503
    assert "no room left" in find_problem(shown)
    assert "What the model says" not in client.get(case).text


def test_readings_that_cannot_be_read_stop_the_start(folder: Path) -> None:
    with (
        pytest.raises(BadInputError, match=r"--readings .* cannot be read"),
        serve(folder, readings=folder),
    ):
        pass


def test_damaged_events_are_left_out(tmp_path: Path) -> None:
    path = tmp_path / "readings.jsonl"
    good = {
        **dict.fromkeys(("time", "reader", "case", "byte_sha256", "pixel_sha256"), "x"),
        "event": "read",
        "birads": "2",
        "blinded": True,
    }
    damaged = [
        good | own for own in ({"birads": "7"}, {"blinded": 1}, {"case": None}, {"event": "x"})
    ]
    lines = [json.dumps(own) for own in (good, *damaged)]
    path.write_text("\n".join([*lines, "[]", "7", ""]))
    assert Readings(path).list_events() == [good]


def test_of_two_reads_of_a_file_the_first_counts(tmp_path: Path) -> None:
    readings = Readings(tmp_path / "readings.jsonl")
    for case, first in (("a", "2"), ("b", "5")):
        own = {"case": case, "byte_sha256": case, "pixel_sha256": "same"}
        readings.add("read", "A", birads=first, blinded=True, **own)
        readings.add("answer", "A", flagged=True, model_version="v", **own)
    assert readings.list_reads()["first"].tolist() == ["2"]


def test_two_labels_of_one_file_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "truth.csv"
    path.write_text("byte_sha256,label\na,malignant\nA,benign\n")
    with pytest.raises(BadInputError, match="line 3: a has another label"):
        read_truths(path, Classes(("benign", "malignant"), ("malignant",)))


def test_what_a_flag_means_follows_the_prevalence(client: TestClient) -> None:
    case = open_scan(client)
    read(client, case)
    before = client.get(case).text
    assert "Where 5 % of all images are malignant".replace(" %", "\u00a0%") in before
    key = case.rsplit("/", 1)[1]
    after = client.post("/page/prevalence", data={"percent": "50", "case": key})
    assert after.url.path == case
    assert "Where 50\u00a0% of all images" in after.text
    assert client.post("/page/prevalence", data={"percent": "0"}).status_code == 422


def test_a_case_keeps_its_model_when_the_champion_changes(tmp_path: Path) -> None:
    models = tmp_path / "06_models"
    versions = {role: write_model(models, own) for role, own in THRESHOLDS.items()}
    give_roles(models, **{CHAMPION: versions[CHAMPION], PREVIOUS: versions[PREVIOUS]})
    with serve(models) as (client, service):
        sign_in(client)
        case = open_scan(client)
        read(client, case)
        give_roles(models, **{CHAMPION: versions[PREVIOUS], PREVIOUS: versions[CHAMPION]})
        service.models.refresh()
        shown = client.post(f"{case}/answer", data=BOX, headers={"x-asked-by": "script"})
        assert versions[CHAMPION] in shown.text
        other = open_scan(client, BRIGHT)
        assert versions[PREVIOUS] in read(client, other).text


def make_case(key: str, size: int, final: str = "") -> Case:
    return Case(key, key, "", b"x" * size, "", "", b"", 1, 1, first="2", final=final)


def test_decided_images_make_room_and_open_ones_stay() -> None:
    sessions = Sessions(60, 400)  # a reader may fill a quarter
    session = sessions.find(sessions.begin("a", 0.05))
    other = sessions.find(sessions.begin("b", 0.05))
    assert session is not None
    assert other is not None
    sessions.add(session, make_case("open", 40))
    sessions.add(session, make_case("decided", 40, "2"))
    sessions.add(session, make_case("third", 50))
    assert list(session.cases) == ["open", "third"]
    with pytest.raises(RequestError, match="no room"):
        sessions.add(session, make_case("fourth", 50))
    sessions.add(other, make_case("of another", 50))


def test_a_line_that_was_cut_off_harms_no_other(folder: Path) -> None:
    path = folder.parent / "07_model_output" / "readings.jsonl"
    path.parent.mkdir()
    path.write_text('{"event": "read", "rea')
    with serve(folder) as (client, _):
        sign_in(client)
        read(client, open_scan(client))
    lines = path.read_text().splitlines()
    assert len(lines) == 3
    assert [json.loads(line)["event"] for line in lines[1:]] == ["read", "answer"]


def test_readings_lie_beside_the_models(tmp_path: Path) -> None:
    assert make_settings(models=tmp_path / "06_models").find_readings() == (
        tmp_path / "07_model_output" / "readings.jsonl"
    )
