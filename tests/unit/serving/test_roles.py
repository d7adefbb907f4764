"""The service follows the ledger: no request is lost, and going back needs no loading."""

import json
import shutil
import threading
import time
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from fastapi.testclient import TestClient

from busi_pipeline.errors import BadInputError
from busi_pipeline.models.ledger import CHALLENGER, CHAMPION, PREVIOUS
from busi_pipeline.models.model_store import ModelStore
from busi_pipeline.models.packaged import load_package
from busi_pipeline.serving import loaded, shadow
from busi_pipeline.serving.loaded import LoadedModels
from busi_pipeline.serving.measures import Measures
from busi_pipeline.serving.shadow_report import compare_shadow
from busi_pipeline.serving.uploads import Upload
from tests.package_factories import change_package_file
from tests.serving_factories import BRIGHT, SCAN, THRESHOLDS, give_roles, serve, write_model


@pytest.fixture
def models(tmp_path: Path) -> Path:
    return tmp_path / "models"


@pytest.fixture
def versions(models: Path) -> dict[str, str]:
    return {role: write_model(models, threshold) for role, threshold in THRESHOLDS.items()}


def ask(client: TestClient, *contents: bytes) -> dict[str, Any]:
    files = [("files", (f"{n}.png", own)) for n, own in enumerate(contents or (BRIGHT,))]
    sent = client.post("/v1/predictions", files=files)
    assert sent.status_code == 200
    return dict(sent.json())


def wait_for_lines(path: Path, count: int) -> None:
    end = time.monotonic() + 20
    while not path.is_file() or len(path.read_text().splitlines()) < count:
        assert time.monotonic() < end
        time.sleep(0.01)


def test_a_new_champion_answers_and_the_old_one_stays_loaded(
    models: Path, versions: dict[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    champion, previous = versions[CHAMPION], versions[PREVIOUS]
    give_roles(models, champion=previous)
    with serve(models, refresh_seconds=1000) as (client, service):
        assert ask(client)["model_version"] == previous
        give_roles(models, champion=champion, previous=previous)
        service.models.refresh()
        assert ask(client)["model_version"] == champion
        roles = {"champion": champion, "previous": previous}
        assert client.get("/v1/model").json()["roles"] == roles
        monkeypatch.setattr(loaded, "load_package", None)  # nothing can be loaded any more
        give_roles(models, champion=previous, previous=champion)
        service.models.refresh()
        assert ask(client)["model_version"] == previous
        assert f'version="{previous}"}} 1.0' in client.get("/metrics").text
        assert f'version="{champion}"' not in client.get("/metrics").text


def test_the_ledger_is_followed_by_itself(models: Path, versions: dict[str, str]) -> None:
    give_roles(models, champion=versions[PREVIOUS])
    with serve(models, refresh_seconds=0.02) as (client, _):
        give_roles(models, champion=versions[CHAMPION], previous=versions[PREVIOUS])
        for _ in range(500):
            if ask(client)["model_version"] == versions[CHAMPION]:
                return
    pytest.fail("the champion before still answers")


def test_a_model_that_was_named_is_not_exchanged(models: Path, versions: dict[str, str]) -> None:
    give_roles(models, champion=versions[CHAMPION])
    named = LoadedModels(models, versions[PREVIOUS], 1000)
    named.refresh()
    assert named.serving.model.version == versions[PREVIOUS]
    assert named.serving.roles == {}


@pytest.mark.parametrize("damage", ["changed", "gone", "ledger", "no model"])
def test_a_champion_that_cannot_be_loaded_leaves_the_old_one(
    damage: str, models: Path, versions: dict[str, str]
) -> None:
    """A model that was swapped on disk has another hash."""
    champion, previous = versions[CHAMPION], versions[PREVIOUS]
    give_roles(models, champion=previous)
    store = ModelStore(models)
    kept = store.kept(champion)
    with serve(models, refresh_seconds=1000) as (client, service):
        give_roles(models, champion=champion, previous=previous)
        before = store.ledger_path.read_bytes()
        if damage == "changed":
            with (kept / "classifier.onnx").open("ab") as file:
                file.write(b"x")
        elif damage == "gone":
            shutil.move(kept, kept.with_name("moved"))
        elif damage == "ledger":
            store.ledger_path.write_bytes(before[:-5])
        else:
            change_package_file(kept, input={"view": "lesion", "colour": "red"})
            give_roles(models, champion=load_package(kept).version)
        service.models.refresh()
        ready = client.get("/readyz")
        assert (ready.status_code, ready.json()["model_version"]) == (503, previous)
        assert client.get("/v2/health/ready").json() == {"ready": False}
        assert ask(client)["model_version"] == previous, "it goes on answering"
        store.ledger_path.write_bytes(before)
        give_roles(models, champion=previous)
        service.models.refresh()
        assert client.get("/readyz").json()["model_version"] == previous


def test_another_role_that_cannot_be_loaded_is_left_out(
    models: Path, versions: dict[str, str]
) -> None:
    champion, challenger = versions[CHAMPION], versions[CHALLENGER]
    give_roles(models, champion=versions[PREVIOUS])
    with serve(models, refresh_seconds=1000) as (client, service):
        shutil.rmtree(ModelStore(models).kept(challenger))
        give_roles(models, champion=champion, challenger=challenger)
        service.models.refresh()
        assert client.get("/readyz").json() == {"status": "ready", "model_version": champion}
        assert client.get("/v1/model").json()["roles"] == {"champion": champion}


def test_the_first_champion_takes_over_from_the_only_model(tmp_path: Path) -> None:
    only = write_model(tmp_path, 0.3)
    with serve(tmp_path, refresh_seconds=1000) as (client, service):
        service.models.refresh()
        assert client.get("/readyz").json() == {"status": "ready", "model_version": only}
        champion = write_model(tmp_path, 0.4)
        give_roles(tmp_path, champion=champion)
        service.models.refresh()
        assert ask(client)["model_version"] == champion


def test_without_a_model_the_service_does_not_start(models: Path) -> None:
    with pytest.raises(BadInputError, match="no packaged model in"), serve(models):
        pass


def test_a_challenger_sees_the_same_and_is_never_returned(
    models: Path, versions: dict[str, str], tmp_path: Path
) -> None:
    champion, challenger = versions[CHAMPION], versions[CHALLENGER]
    give_roles(models, champion=champion, challenger=challenger)
    path = tmp_path / "shadow" / "answers.jsonl"
    with serve(models, shadow=path) as (client, service):
        service.models.refresh()
        body = ask(client, BRIGHT, SCAN, b"none")
        assert challenger not in json.dumps(body)
        ask(client, BRIGHT)
        wait_for_lines(path, 3)
    with path.open("a") as file:
        file.write('{"time": "20')  # the service was killed
    lines = [json.loads(line) for line in path.read_text().splitlines()[:3]]
    assert [line["champion"] for line in lines] == [champion] * 3
    assert [line["challenger"] for line in lines] == [challenger] * 3
    assert lines[0]["request_id"] == body["request_id"]
    assert not {"file", "name", "image"} & set(lines[0])
    (row,) = compare_shadow(path).to_dict("records")
    assert (row["images"], row["by_champion_alone"], row["by_neither"]) == (2, 1, 1)
    assert (row["champion_flags"], row["challenger_flags"]) == (0.5, 0.0)
    assert row["score_difference"] == 0


def test_a_challenger_that_fails_costs_the_champion_nothing(
    models: Path, versions: dict[str, str], tmp_path: Path
) -> None:
    give_roles(models, champion=versions[CHAMPION], challenger=versions[CHALLENGER])
    path = tmp_path / "shadow.jsonl"
    with serve(models, shadow=path) as (client, service):
        service.models.refresh()
        path.mkdir()  # so that nothing can be written
        ask(client, BRIGHT)
        for _ in range(500):
            text = client.get("/metrics").text
            if "failed" in text:
                break
            time.sleep(0.01)
    assert 'busi_shadow_total{outcome="failed"} 1.0' in text


def test_a_challenger_that_is_slow_leaves_images_out(
    models: Path, versions: dict[str, str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(shadow, "_WAITING", 2)
    measures, go_on = Measures(), threading.Event()
    kept = shadow.Shadow(tmp_path / "shadow.jsonl", measures)
    model = load_package(ModelStore(models).kept(versions[CHAMPION]))
    answer = model.predict_bytes(SCAN)
    held = SimpleNamespace(predict_bytes=lambda *_: go_on.wait(20) and answer)
    for _ in range(5):
        kept.ask(held, Upload("", SCAN, None), answer, "1")  # type: ignore[arg-type]
    go_on.set()
    wait_for_lines(tmp_path / "shadow.jsonl", 2)
    kept.close()
    text = measures.write(0, "", "").decode()
    assert 'busi_shadow_total{outcome="left_out"} 3.0' in text
    assert 'busi_shadow_total{outcome="same"} 2.0' in text
    assert len((tmp_path / "shadow.jsonl").read_text().splitlines()) == 2


def test_a_report_without_comparisons_says_how_to_get_some(tmp_path: Path) -> None:
    with pytest.raises(BadInputError, match="start the service with --shadow"):
        compare_shadow(tmp_path / "none.jsonl")
    (tmp_path / "empty.jsonl").touch()
    with pytest.raises(BadInputError, match="no comparisons"):
        compare_shadow(tmp_path / "empty.jsonl")
