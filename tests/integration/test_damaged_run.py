"""Whatever is left damaged, the next run is as if it was not there, and says so."""

import json
import logging
import os
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pandas as pd
import pytest

from busi_pipeline.caching.whole_files import name_unfinished
from tests.factories import CLASSES
from tests.integration.projects import create_project, find_runs, hide_machine, run_pipeline

EXPERIMENT = "inceptionv3"
PIPELINE = f"train_{EXPERIMENT}"
QUICK = {"evaluation": {"n_resamples": 60}}


def read_results(project: Path) -> tuple[str, str]:
    """Return predictions and metrics, without the seconds."""
    table = pd.read_csv(project / f"data/07_model_output/{EXPERIMENT}/predictions.csv")
    metrics = json.loads((project / f"data/08_reporting/{EXPERIMENT}/metrics.json").read_text())
    return table.to_csv(), json.dumps(metrics["test"])


@pytest.fixture(scope="module")
def project(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    folder = tmp_path_factory.mktemp("damaged") / "project"
    with hide_machine():
        create_project(folder, dict.fromkeys(CLASSES, 10))
        run_pipeline(folder, PIPELINE, QUICK)
        yield folder


def flip(path: Path, place: int) -> None:
    content = bytearray(path.read_bytes())
    content[place] ^= 1
    path.write_bytes(content)


def flip_images(project: Path) -> Path:
    return _flip_part(project, "images")


def flip_features(project: Path) -> Path:
    return _flip_part(project, "features")


def _flip_part(project: Path, kind: str) -> Path:
    parts = sorted((project / "data/cache" / kind).glob("*/*.npy"))
    part = next(path for path in parts if not path.name.endswith(".keys.npy"))
    flip(part, len(part.read_bytes()) // 2)
    return part


def flip_pooled_features(project: Path) -> Path:
    return _flip_part(project, "pooled_features")


def cut_features(project: Path) -> Path:
    parts = sorted((project / "data/cache/features").glob("*/*.npy"))
    part = next(path for path in parts if not path.name.endswith(".keys.npy"))
    part.write_bytes(part.read_bytes()[:-100])
    return part


def cut_network(project: Path) -> Path:
    (network,) = (project / f"data/06_models/{EXPERIMENT}").glob("trained_model.keras")
    network.write_bytes(network.read_bytes()[:-1000])
    return network


def empty_network(project: Path) -> Path:
    (network,) = (project / f"data/06_models/{EXPERIMENT}").glob("trained_model.keras")
    network.write_bytes(b"")
    return network


def cut_record(project: Path) -> Path:
    path = project / f"data/06_models/{EXPERIMENT}/trained_with.json"
    path.write_text(path.read_text()[:20])
    return path


def cut_array(project: Path) -> Path:
    path = next((project / "data/05_model_input").rglob("*.json"))
    path.write_text(path.read_text()[:50])
    return path


DAMAGE: list[Callable[[Path], Path]] = [
    flip_images,
    flip_features,
    flip_pooled_features,
    cut_features,
    cut_network,
    empty_network,
    cut_record,
    cut_array,
]


@pytest.mark.parametrize("damage", DAMAGE, ids=lambda damage: damage.__name__)
def test_what_is_damaged_is_made_again(
    project: Path, damage: Callable[[Path], Path], caplog: pytest.LogCaptureFixture
) -> None:
    before = read_results(project)
    path = damage(project)
    with caplog.at_level(logging.WARNING):
        run_pipeline(project, PIPELINE, QUICK)
    said = [r.message for r in caplog.records if path.name in r.message and "damaged" in r.message]
    assert len(said) == 1, caplog.text
    assert read_results(project) == before
    assert find_runs(project)[0].info.status == "FINISHED"


def test_a_clock_that_was_set_back_changes_nothing(
    project: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """All that is there is of the future then."""
    before = read_results(project)
    future = time.time() + 400 * 24 * 3600
    for path in project.rglob("*"):
        os.utime(path, (future, future))
    with caplog.at_level(logging.INFO):
        run_pipeline(project, PIPELINE, QUICK)
    assert "nothing changed since it was trained; taken from the cache" in caplog.text
    assert "damaged" not in caplog.text
    assert read_results(project) == before
    assert find_runs(project)[0].info.status == "FINISHED"


def test_what_killed_processes_left_is_removed(project: Path) -> None:
    left = name_unfinished(project / f"data/06_models/{EXPERIMENT}/trained_model.keras")
    left = left.with_name(left.name.replace(f"-{os.getpid()}-", "-4194304-"))
    left.touch()
    run_pipeline(project, "splitting", QUICK)
    run_pipeline(project, PIPELINE, QUICK)
    assert not left.exists()
