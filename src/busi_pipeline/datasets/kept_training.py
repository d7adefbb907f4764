"""What an experiment's last training left, for a run in which nothing changed."""

import json
from pathlib import Path
from typing import Any

from kedro.io import AbstractDataset, DatasetError


class KeptTraining:
    """The last training of an experiment, to be asked for by the hash of all it depends on.

    The hash stands in the tags, which are written last, and in the name of the model, which is
    written first: files of two trainings are never taken for one.
    """

    def __init__(self, model: Path, history: Path, report: Path, tags: Path):
        self._model, self._records = model, (history, report, tags)

    @staticmethod
    def name_model(backbone: str, identity: str) -> str:
        """Return the name a model is saved under."""
        return f"{backbone}_{identity[:16]}"

    def find(self, identity: str) -> tuple[Any, Any, Any, dict[str, str]] | None:
        """Return model, history, report and tags; None where they are of another training."""
        if not all(path.is_file() for path in (self._model, *self._records)):
            return None
        history, report, tags = (json.loads(path.read_text()) for path in self._records)
        if tags.get("training_sha256") != identity:
            return None
        import keras

        model = keras.saving.load_model(self._model, compile=False)
        if not model.name.endswith(f"_{identity[:16]}"):
            return None
        return model, history, report, tags


class KeptTrainingDataset(AbstractDataset[None, KeptTraining]):
    """Reads what the catalog's entries of the same experiment wrote under these paths."""

    def __init__(
        self,
        *,
        model: str,
        history: str,
        report: str,
        tags: str,
        metadata: dict[str, Any] | None = None,
    ):
        self._paths = {"model": model, "history": history, "report": report, "tags": tags}
        self.metadata = metadata

    def load(self) -> KeptTraining:
        """Return what finds the training; there need not be one yet."""
        return KeptTraining(**{name: Path(path) for name, path in self._paths.items()})

    def save(self, data: None) -> None:
        """Refuse: the entries whose files are read here write them."""
        raise DatasetError("kept trainings are read-only")

    def _exists(self) -> bool:
        return True

    def _describe(self) -> dict[str, Any]:
        return dict(self._paths)
