"""The folds of a cross-validation: each kept as soon as it is done, each a child run in MLflow."""

import json
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import mlflow
import pandas as pd
from kedro.io import AbstractDataset, DatasetError

from .record import flatten


@dataclass(frozen=True)
class Fold:
    """What one training of a cross-validation left.

    Attributes:
        predictions: one row a judged image, see the node that makes it.
        report: numbers about the training, nested, for the metrics of its child run.
        identity: hash of all it depends on.
        kept: whether it was done by an earlier run.
    """

    predictions: pd.DataFrame
    report: dict[str, Any]
    identity: str
    kept: bool = field(default=False, compare=False)


class FoldsDataset(AbstractDataset[dict[str, Fold], dict[str, Fold]]):
    """`<path>/<fold>.csv` with its predictions and `<path>/<fold>.json` with the rest.

    A node that yields {name: fold} one at a time has each written before the next one begins, so
    that a run that is stopped loses one fold at most. The JSON is written last; a fold without it
    does not count.

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

    def load(self) -> dict[str, Fold]:
        """Return the folds there are, by name; none at all is an empty mapping."""
        folds = {}
        for record in sorted(self._path.glob("*.json")):
            told = json.loads(record.read_text())
            predictions = pd.read_csv(record.with_suffix(".csv"), dtype={"image_id": str})
            folds[record.stem] = Fold(predictions, told["report"], told["identity"], kept=True)
        return folds

    def save(self, data: dict[str, Fold]) -> None:
        """Write folds, replacing those of the same name; log each as a child of the active run."""
        self._path.mkdir(parents=True, exist_ok=True)
        for name, fold in data.items():
            if not name.isidentifier():
                raise DatasetError(f"a fold's name must be an identifier; got {name!r}")
            if not fold.kept:
                record = self._path / f"{name}.json"
                record.unlink(missing_ok=True)
                fold.predictions.to_csv(record.with_suffix(".csv"), index=False)
                told = {"identity": fold.identity, "report": fold.report}
                record.write_text(json.dumps(told, indent=2))
            if mlflow.active_run() is not None and self._logging_activated:
                self._log_child(name, fold)

    def _log_child(self, name: str, fold: Fold) -> None:
        with mlflow.start_run(run_name=f"{self._experiment}, {name}", nested=True):
            mlflow.set_tags({"experiments": self._experiment, "fold": name, "fold_kept": fold.kept})
            leaves = dict(flatten(fold.report))
            mlflow.log_metrics(
                {k: float(v) for k, v in leaves.items() if isinstance(v, int | float)}
            )

    def _exists(self) -> bool:
        return any(self._path.glob("*.json"))

    def _describe(self) -> dict[str, Any]:
        return {"path": str(self._path), "experiment": self._experiment}
