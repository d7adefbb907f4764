"""The complete settings of one experiment, out of the parameters of the session."""

from typing import Any

from kedro.io import AbstractDataset, DatasetError

from busi_pipeline.config import load_active_parameters
from busi_pipeline.errors import BadInputError
from busi_pipeline.experiments import load_experiments


class ExperimentSettingsDataset(AbstractDataset[None, dict[str, Any]]):
    """A row of `experiments` laid over the shared parameters and checked.

    A dataset rather than `params:`, because kedro-mlflow logs every `params:` input under its own
    name: the shared values would stand beside those of the row that override them, and runs of
    different rows would not line up. The complete settings are logged once, when the run starts.

    Args:
        experiment: name of the row.
        metadata: for kedro-viz.
    """

    def __init__(self, experiment: str, metadata: dict[str, Any] | None = None):
        self._experiment = experiment
        self.metadata = metadata

    def load(self) -> dict[str, Any]:
        """Return `experiments.ExperimentSettings` as a dictionary."""
        experiments = load_experiments(load_active_parameters())
        if self._experiment not in experiments:
            raise BadInputError(
                f"no experiment {self._experiment!r}: there are {sorted(experiments)}. "
                "Experiments are rows of conf/base/parameters_experiments.yml."
            )
        return experiments[self._experiment].model_dump(exclude_none=True)

    def save(self, data: None) -> None:
        """Refuse: settings are changed in the parameters."""
        raise DatasetError("settings are read-only: change the parameters")

    def _exists(self) -> bool:
        return True

    def _describe(self) -> dict[str, Any]:
        return {"experiment": self._experiment}
