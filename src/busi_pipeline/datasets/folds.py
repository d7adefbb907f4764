"""The folds of a cross-validation: each kept as soon as it is done, each a child run in MLflow."""

import json
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import mlflow
from kedro.io import AbstractDataset, DatasetError

from .record import flatten


@dataclass(frozen=True)
class TrainedFold:
    """What one training of a cross-validation left.

    Attributes:
        predictions: {column: values}, one row a judged image; see the node that makes it.
        report: numbers about the training, nested, for the metrics of its child run.
        identity: hash of all it depends on.
        kept: whether it was done by an earlier run.
    """

    predictions: dict[str, list[Any]]
    report: dict[str, Any]
    identity: str
    kept: bool = field(default=False, compare=False)


class FoldsDataset(AbstractDataset[dict[str, TrainedFold], dict[str, TrainedFold]]):
    """`<path>/<fold>.json`, one file a fold.

    A node that yields {name: fold} one at a time has each written before the next one begins, so
    that a run that is stopped loses one fold at most.

    Args:
        path: folder of this cross-validation.
        experiment: for the names of the child runs.
        metadata: for kedro-viz.
    """

    def __init__(self, *, path: str, experiment: str, metadata: dict[str, Any] | None = None):
        self._path = Path(path)
        self._experiment = experiment
        self.metadata = metadata
        self.optional = True  # the first run has none to go on from
        self._logging_activated = True  # kedro-mlflow switches it off for untracked pipelines

    def load(self) -> dict[str, TrainedFold]:
        """Return the folds there are, by name; none at all is an empty mapping."""
        return {
            record.stem: TrainedFold(**json.loads(record.read_text()), kept=True)
            for record in sorted(self._path.glob("*.json"))
        }

    def save(self, data: dict[str, TrainedFold]) -> None:
        """Write folds, replacing those of the same name; log each as a child of the active run."""
        self._path.mkdir(parents=True, exist_ok=True)
        for name, fold in data.items():
            if not name.isidentifier():
                raise DatasetError(f"a fold's name must be an identifier; got {name!r}")
            if not fold.kept:
                told = asdict(fold)
                told.pop("kept")
                unfinished = self._path / f"{name}.unfinished"
                unfinished.write_text(json.dumps(told))
                unfinished.replace(self._path / f"{name}.json")
            if mlflow.active_run() is not None and self._logging_activated:
                self._log_child(name, fold)

    def _log_child(self, name: str, fold: TrainedFold) -> None:
        with mlflow.start_run(run_name=f"{self._experiment}, {name}", nested=True):
            mlflow.set_tags(
                {
                    "experiments": self._experiment,
                    "fold": name,
                    "fold_sha256": fold.identity,
                    "fold_kept": "yes" if fold.kept else "no",
                }
            )
            mlflow.log_metrics({key: float(v) for key, v in flatten(fold.report)})

    def _exists(self) -> bool:
        return any(self._path.glob("*.json"))

    def _describe(self) -> dict[str, Any]:
        return {"path": str(self._path), "experiment": self._experiment}
