"""Clients of the Open Inference Protocol ask with what they know."""

import base64
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from fastapi.testclient import TestClient

from busi_pipeline.models.packaged import PackagedModel
from tests.serving_factories import BRIGHT, SCAN, serve

INFER = "/v2/models/tiny/infer"


@pytest.fixture(scope="module")
def client(models: Path) -> Iterator[TestClient]:
    with serve(models, max_files=3) as (client, _):
        yield client


def tensor(name: str, *data: Any, **changes: Any) -> dict[str, Any]:
    return {"name": name, "shape": [len(data)], "datatype": "BYTES", "data": list(data)} | changes


def encode(content: bytes) -> str:
    return base64.b64encode(content).decode()


def test_it_says_what_it_takes_and_gives(client: TestClient, model: PackagedModel) -> None:
    assert client.get("/v2/health/live").json() == {"live": True}
    assert client.get("/v2/health/ready").json() == {"ready": True}
    assert client.get("/v2").json()["name"] == "busi_pipeline"
    told = client.get("/v2/models/tiny").json()
    assert (told["name"], told["versions"]) == ("tiny", [model.version])
    assert [own["name"] for own in told["inputs"]] == ["image", "box"]
    shapes = {own["name"]: own["shape"] for own in told["outputs"]}
    assert shapes["probabilities"] == [-1, 3]
    assert client.get("/v2/models/tiny/ready").json() == {"name": "tiny", "ready": True}
    for path in ("/v2/models/other", "/v2/models/other/ready"):
        assert client.get(path).status_code == 404


def test_it_answers_as_the_package(client: TestClient, model: PackagedModel) -> None:
    inputs = [tensor("image", encode(SCAN), encode(BRIGHT)), tensor("box", "10,12,50,40", "")]
    sent = client.post(INFER, json={"id": "42", "inputs": inputs})
    assert sent.status_code == 200
    body = sent.json()
    assert (body["id"], body["model_name"], body["model_version"]) == ("42", "tiny", model.version)
    outputs = {own["name"]: own for own in body["outputs"]}
    answers = [model.predict_bytes(SCAN, (10, 12, 50, 40)), model.predict_bytes(BRIGHT)]
    assert outputs["positive_score"]["data"] == [answer.positive_score for answer in answers]
    assert outputs["flagged"]["data"] == [answer.flagged for answer in answers]
    assert outputs["probabilities"]["shape"] == [2, 3]
    assert outputs["probabilities"]["data"][3:] == list(answers[1].probabilities.values())
    assert json.loads(outputs["answer"]["data"][0])["box_source"] == "reader"


def test_only_what_is_asked_for_is_given(client: TestClient) -> None:
    asked = {"inputs": [tensor("image", encode(SCAN))], "outputs": [{"name": "flagged"}]}
    assert [own["name"] for own in client.post(INFER, json=asked).json()["outputs"]] == ["flagged"]


GOOD = encode(SCAN)
REFUSED: dict[str, tuple[Any, str]] = {
    "nothing": ({}, "inputs"),
    "a list": ([], "inputs"),
    "text for inputs": ({"inputs": "image"}, "inputs"),
    "text for data": ({"inputs": [tensor("image", GOOD, data="x")]}, "1 to 3 images"),
    "no shape": ({"inputs": [{"name": "image", "data": [GOOD]}]}, "inputs.0.shape"),
    "no image": ({"inputs": [tensor("box", "")]}, "inputs are `image`"),
    "another tensor": ({"inputs": [tensor("image", GOOD), tensor("x", "")]}, "inputs are `image`"),
    "an image twice": ({"inputs": [tensor("image", GOOD)] * 2}, "inputs are `image`"),
    "numbers": ({"inputs": [tensor("image", GOOD, datatype="FP32")]}, "datatype BYTES"),
    "another shape": ({"inputs": [tensor("image", GOOD, shape=[2])]}, "shape [1]"),
    "fewer boxes": (
        {"inputs": [tensor("image", GOOD, GOOD), tensor("box", "")]},
        "`box` must have",
    ),
    "a box of numbers": ({"inputs": [tensor("image", GOOD), tensor("box", 3)]}, "box 1 must be"),
    "no base64": ({"inputs": [tensor("image", "ä")]}, "image 1 is no base64"),
    "a number": ({"inputs": [tensor("image", 3)]}, "image 1 is no base64"),
    "no images": ({"inputs": [tensor("image")]}, "1 to 3 images"),
    "too many": ({"inputs": [tensor("image", *[GOOD] * 4)]}, "1 to 3 images"),
    "no picture": ({"inputs": [tensor("image", encode(b"x"))]}, "image 1 cannot be used"),
    "another output": (
        {"inputs": [tensor("image", GOOD)], "outputs": [{"name": "colour"}]},
        "outputs are flagged",
    ),
}


@pytest.mark.parametrize("name", REFUSED)
def test_a_wrong_request_is_refused_in_one_line(name: str, client: TestClient) -> None:
    asked, reason = REFUSED[name]
    sent = client.post(INFER, json=asked)
    assert sent.status_code == 422
    assert reason in sent.json()["detail"]
    assert "\n" not in sent.json()["detail"]


def test_another_model_does_not_answer(client: TestClient) -> None:
    asked = {"inputs": [tensor("image", GOOD)]}
    assert client.post("/v2/models/other/infer", json=asked).status_code == 404


@pytest.mark.parametrize("body", [b"", b"{", b"[" * 100_000, b"\xff"])
def test_what_is_no_json_is_refused(body: bytes, client: TestClient) -> None:
    sent = client.post(INFER, content=body, headers={"content-type": "application/json"})
    assert (sent.status_code, sent.json()["detail"]) == (400, "the body is no JSON")
