"""A dictionary kept as JSON and logged to the MLflow run as metrics or tags."""

import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any, Literal

import mlflow
from kedro_datasets.json import JSONDataset
from mlflow.entities import Metric, RunTag
from mlflow.tracking import MlflowClient
from mlflow.utils.time import get_current_time_millis

from busi_pipeline.caching.places import Place, fetch, find_place
from busi_pipeline.config.given import flatten
from busi_pipeline.errors import BadInputError
from busi_pipeline.stats.bootstrap import HIGH, LOW

_LOCAL = ("", "file", "local")  # protocols
# What a key in MLflow may hold; class names are part of keys.
_NOT_IN_KEYS = re.compile(r"[^/\w.\- :]")


def name_keys(leaves: Iterable[tuple[str, Any]]) -> dict[str, Any]:
    """Return {key: value} with keys that MLflow takes: an underscore for every other character.

    Raises BadInputError where two keys become one.
    """
    named: dict[str, Any] = {}
    for name, value in leaves:
        key = _NOT_IN_KEYS.sub("_", name)
        if key in named:
            raise BadInputError(
                f"{name!r} and another name are both {key!r} in MLflow, whose keys hold letters, "
                "digits and any of `/ . - : _`: rename one of the classes."
            )
        named[key] = value
    return named


def find_run(run_id: str | None = None) -> str | None:
    """Return `run_id`, else the id of the run that is active in this thread, else None."""
    if run_id is not None:
        return run_id
    run = mlflow.active_run()
    return run.info.run_id if run else None


def find_file(dataset: Any) -> Place:
    """Return the file of one of Kedro's own datasets, which keep it without its protocol."""
    path, protocol = dataset._get_save_path(), dataset._protocol
    return Path(path) if protocol in _LOCAL else find_place(f"{protocol}://{path}")


def prefix_of(experiment: str | None, run_id: str | None = None) -> str:
    """Return what stands before the keys of an experiment's records in a run.

    Nothing in a run about this experiment alone, so that runs of different experiments line up in
    the MLflow UI; the experiment's name in a run over several. The run's tag `experiments` decides.

    Args:
        experiment: None gives no prefix.
        run_id: the active run by default.
    """
    run_id = find_run(run_id)
    if experiment is None or run_id is None:
        return ""
    tags = MlflowClient().get_run(run_id).data.tags
    return "" if tags.get("experiments") == experiment else experiment


class RunRecordDataset(JSONDataset):
    """JSON on disk; on saving within an MLflow run, its leaves are logged there as well.

    A run has hundreds of figures, and whoever compares runs looks at a dozen. The ends of intervals
    are no metrics of the run: they stand in the file, which is an artifact of it.

    Args:
        filepath: of the JSON file.
        log_as: `metrics` (numbers; a list becomes a curve over epochs 1, 2, ...) or `tags`.
            Leaves of other types stay in the file alone.
        logged: patterns of the keys that are logged, such as `test.flag.*`; all by default.
        artifact_path: folder in the run to which the file is logged; None logs the leaves alone.
        experiment: the record belongs to; its name stands before the keys in runs over several.
        prefix: stands before the keys in every run, after the experiment's name.
        optional: loading gives None where nothing was saved yet, instead of an error.
        not_logged: top-level keys that stay in the file alone.
        metadata: for kedro-viz.

    Attributes:
        run_id: the MLflow run to log to, which a hook sets; None is the one active in the thread.
    """

    def __init__(
        self,
        *,
        filepath: str,
        log_as: Literal["metrics", "tags"],
        experiment: str | None = None,
        prefix: str = "",
        optional: bool = False,
        logged: Sequence[str] = ("*",),
        not_logged: Sequence[str] = (),
        artifact_path: str | None = None,
        metadata: dict[str, Any] | None = None,
    ):
        super().__init__(filepath=filepath, save_args={"indent": 2}, metadata=metadata)
        if log_as not in ("metrics", "tags"):
            raise ValueError(f"log_as must be 'metrics' or 'tags'; got {log_as!r}")
        self._log_as = log_as
        self._experiment, self._prefix = experiment, prefix
        self.optional = optional
        self._logged, self._not_logged = tuple(logged), set(not_logged)
        self.artifact_path = artifact_path
        self.run_id: str | None = None

    def load(self) -> Any:
        """Return the record, or None where it is optional and was not saved yet."""
        if self.optional and not self._exists():
            return None
        return super().load()

    def save(self, data: Mapping[str, Any]) -> None:
        """Write the JSON file and log to the run, if there is one."""
        super().save(data)
        run_id = find_run(self.run_id)
        if run_id is None:
            return
        prefixes = (prefix_of(self._experiment, run_id), self._prefix)
        prefix = "".join(f"{part}." for part in prefixes if part)
        leaves = name_keys((prefix + key, value) for key, value in self._select(data))
        client = MlflowClient()
        if self.artifact_path is not None:
            with fetch(find_file(self)) as file:
                client.log_artifact(run_id, str(file), self.artifact_path)
        if self._log_as == "metrics":
            now = get_current_time_millis()
            metrics = [Metric(key, v, now, step) for key, v, step in _list_points(leaves)]
            for start in range(0, len(metrics), 500):  # MLflow takes at most 1000 a call
                client.log_batch(run_id, metrics=metrics[start : start + 500])
        else:
            tags = [RunTag(key, str(value)) for key, value in leaves.items()]
            for start in range(0, len(tags), 100):  # and at most 100 tags
                client.log_batch(run_id, tags=tags[start : start + 100])

    def _select(self, data: Mapping[str, Any]) -> Iterator[tuple[str, Any]]:
        """Yield the leaves that are logged."""
        for key, value in flatten({k: v for k, v in data.items() if k not in self._not_logged}):
            is_end = self._log_as == "metrics" and key.endswith((LOW, HIGH))
            if not is_end and any(fnmatchcase(key, pattern) for pattern in self._logged):
                yield key, value


def _list_points(leaves: Mapping[str, Any]) -> Iterator[tuple[str, float, int]]:
    for key, value in leaves.items():
        values = value if isinstance(value, list) else [value]
        if all(isinstance(v, int | float) and not isinstance(v, bool) for v in values):
            first = 1 if isinstance(value, list) else 0
            yield from ((key, float(v), step) for step, v in enumerate(values, first))
