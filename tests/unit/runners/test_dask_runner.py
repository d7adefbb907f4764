"""What a run with Dask asks for, and what it refuses before a worker begins."""

import asyncio
import pickle
from collections.abc import Callable, Coroutine
from pathlib import Path

import pytest
from kedro.framework.hooks.manager import _NullPluginManager
from kedro.io import DataCatalog, MemoryDataset
from kedro.pipeline import Node, Pipeline
from kedro_datasets.json import JSONDataset
from pydantic import ValidationError

from busi_pipeline.config.context import ProjectContext
from busi_pipeline.config.loader import LOADER_ARGUMENTS, ProjectConfigLoader
from busi_pipeline.config.schemas import DaskSettings, JobQueueSettings
from busi_pipeline.errors import BadInputError, BadSettingError
from busi_pipeline.request import check_runner_name
from busi_pipeline.runners import clusters, dask_runner
from tests.unit.test_request import answer_of

SETTINGS = DaskSettings(
    address=None, jobqueue=None, workers=None, threads=1, memory=4.0, attempts=3, dashboard=None
)


def identity(value: int) -> int:
    return value


def make_node(given: str, made: str) -> Node:
    return Node(identity, given, made, name=made)


def test_workers_are_as_many_as_cores_and_memory_allow(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(clusters, "CPU_COUNT", 8)
    monkeypatch.setattr(clusters, "MEMORY_LIMIT", 64 * 10**9)
    assert clusters.count_workers(SETTINGS) == 8
    assert clusters.count_workers(SETTINGS.updated({"threads": 3})) == 2
    assert clusters.count_workers(SETTINGS.updated({"memory": 16.0})) == 4
    assert clusters.count_workers(SETTINGS.updated({"memory": 100.0})) == 1
    assert clusters.count_workers(SETTINGS.updated({"memory": 100.0, "workers": 5})) == 5


def test_a_run_has_one_place_for_its_workers() -> None:
    queue = {"system": "slurm", "jobs": 2}
    assert not SETTINGS.is_elsewhere
    assert SETTINGS.updated({"jobqueue": queue}).is_elsewhere
    assert SETTINGS.updated({"address": "tcp://a:1"}).is_elsewhere
    with pytest.raises(ValidationError, match="address and jobqueue are two places"):
        SETTINGS.updated({"jobqueue": queue, "address": "tcp://a:1"})


def test_a_dataset_in_memory_is_refused_by_name(tmp_path: Path) -> None:
    pipeline = Pipeline([make_node("a", "b"), make_node("b", "c")])
    catalog = DataCatalog({"a": MemoryDataset(1), "b": MemoryDataset(), "c": MemoryDataset()})
    with pytest.raises(BadInputError, match=r"^b is kept in memory"):
        dask_runner.refuse_memory_datasets(pipeline, catalog)
    catalog["b"] = JSONDataset(filepath=str(tmp_path / "b.json"))
    dask_runner.refuse_memory_datasets(pipeline, catalog)


def test_what_has_most_steps_after_it_comes_first() -> None:
    pipeline = Pipeline([make_node("a", "b"), make_node("b", "c"), make_node("a", "d")])
    depths = {node.name: depth for node, depth in dask_runner.measure_depths(pipeline).items()}
    assert depths == {"b": 1, "c": 0, "d": 0}


def test_hooks_load_what_they_ask_for_alone(tmp_path: Path) -> None:
    kept = JSONDataset(filepath=str(tmp_path / "b.json"))
    kept.save(7)
    catalog = DataCatalog({"a": JSONDataset(filepath=str(tmp_path / "none.json")), "b": kept})
    saved = dask_runner._Saved(catalog, ["a", "b"])
    assert list(saved) == ["a", "b"]
    assert saved["b"] == 7
    with pytest.raises(KeyError):
        saved["c"]


def test_a_runner_without_dask_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    def find_no_dask(*_: str) -> None:
        raise ModuleNotFoundError("No module named 'distributed'", name="distributed")

    monkeypatch.setattr("busi_pipeline.request.load_obj", find_no_dask)
    said = answer_of(check_runner_name, "busi_pipeline.runners.DaskRunner")
    assert "pip install 'busi_pipeline[dask]'" in said
    assert "--runner=busi_pipeline.runners.DaskRunner?" in answer_of(check_runner_name, "DaskRuner")


def test_the_errors_of_a_worker_come_back_as_they_were() -> None:
    for error in (BadInputError("no"), BadSettingError("no", "split.seed")):
        came = pickle.loads(pickle.dumps(error))
        assert type(came) is type(error)
        assert (came.message, vars(came)) == (error.message, vars(error))


def test_a_worker_has_the_settings_with_which_the_run_began(make_conf: Callable[..., Path]) -> None:
    """Files that change while a run is on change nothing of it."""
    conf = make_conf(local="split: {seed: 5}")
    loader = ProjectConfigLoader(conf, runtime_params={"training": {"seed": 9}}, **LOADER_ARGUMENTS)
    sent = pickle.dumps(loader.take_snapshot())
    (conf / "local/parameters.yml").write_text("split: {seed: 6}")
    (conf / "base/catalog.yml").write_text("")
    came = ProjectConfigLoader.from_snapshot(pickle.loads(sent))
    context = ProjectContext(
        project_path=conf.parent,
        config_loader=came,
        env=None,
        package_name="busi_pipeline",
        hook_manager=_NullPluginManager(),
    )
    assert context.params["split"].seed == 5
    assert context.params["experiments"]["vgg16"].training.seed == 9
    assert "vgg16.metrics" in context.catalog


@pytest.mark.parametrize(("system", "name"), clusters._SYSTEMS.items())
def test_each_queue_gets_jobs_of_one_worker(
    system: str, name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    import dask_jobqueue

    asked = {}

    class Queue:
        def __init__(self, **options: object):
            asked.update(options)

            self.worker_spec: dict[str, str] = {}

        def new_worker_spec(self) -> dict[str, str]:
            return {"0": "a job"}

        async def _correct_state(self) -> None:
            asked["at once"] = self.worker_spec

        def sync(self, function: Callable[[], Coroutine[None, None, None]]) -> None:
            asyncio.run(function())

        def adapt(self, minimum_jobs: int, maximum_jobs: int) -> None:
            asked["jobs"] = (minimum_jobs, maximum_jobs)

    assert hasattr(dask_jobqueue, name)
    monkeypatch.setattr(dask_jobqueue, name, Queue)
    own = {"walltime": "01:00:00", "worker_extra_args": ["--resources", "a=1"]}
    queue = JobQueueSettings(system=system, jobs=3, options=own)
    clusters._start_jobs(SETTINGS.updated({"threads": 4}), queue)
    assert asked["jobs"] == (3, 3)
    assert asked["at once"] == {"0": "a job"}
    assert asked["processes"] == 1
    assert asked["cores"] == 4
    assert asked["worker_extra_args"] == ["--resources", "a=1", "--nthreads", "1"]
    assert asked["memory"] == "4.0 GB"
    assert asked["walltime"] == "01:00:00"


class Scheduler:
    """As many workers as its list says, one answer after the other."""

    def __init__(self, counts: list[int]):
        self._counts = counts

    def scheduler_info(self, n_workers: int) -> dict[str, dict[str, None]]:
        assert n_workers == -1, "Dask gives five by default"
        return {"workers": dict.fromkeys(map(str, range(self._counts.pop(0))))}


def test_a_run_without_workers_says_so_again(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    times = iter((0.0, 30.0, 61.0, 70.0, 700.0, 710.0, 720.0, 800.0))
    monkeypatch.setattr(clusters.time, "monotonic", lambda: next(times))
    workers = clusters.Workers(Scheduler([0, 0, 0, 0, 0, 2, 0, 0]), 2, "look there.")
    said = []
    for _ in range(8):
        caplog.clear()
        workers.count()
        said.append(caplog.messages)
    line = ["there is no worker, and the run waits: look there."]
    assert said == [[], [], line, [], line, [], [], line]
