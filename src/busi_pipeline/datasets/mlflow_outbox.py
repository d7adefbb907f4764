"""The runs that wait for an MLflow server, as a dataset."""

from pathlib import Path
from typing import Any, NamedTuple

from kedro.io import AbstractDataset, DatasetError

from busi_pipeline.errors import BadInputError
from busi_pipeline.tracking.outbox import Delivered, Outbox
from busi_pipeline.tracking.server import is_server


class AddressedOutbox(NamedTuple):
    """The outbox of a project, and the `server` that is meant now."""

    outbox: Outbox
    server: str

    def deliver(self) -> list[Delivered]:
        """See tracking.outbox.Outbox.deliver."""
        if not is_server(self.server):
            raise BadInputError(
                "no MLflow server is named, so there is nothing to deliver to: set "
                "MLFLOW_TRACKING_URI=http://..."
            )
        return self.outbox.deliver(self.server)


class MlflowOutboxDataset(AbstractDataset[None, AddressedOutbox]):
    """The runs that wait for an MLflow server; a node delivers them.

    Args:
        path: folder of the outbox.
        server: tracking URI of the project.
        metadata: for Kedro-Viz.
    """

    def __init__(self, *, path: str, server: str, metadata: dict[str, Any] | None = None):
        self._path, self._server = Path(path), server
        self.metadata = metadata

    def load(self) -> AddressedOutbox:
        """Return the outbox with its server."""
        return AddressedOutbox(Outbox(self._path), self._server)

    def save(self, data: None) -> None:
        """Refuse: runs come into the outbox as they are logged."""
        raise DatasetError("runs come into the outbox as they are logged")

    def _describe(self) -> dict[str, Any]:
        return {"path": str(self._path), "server": self._server}
