"""What a page says of the run that wrote it: day, code, options of the command."""

import subprocess
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, NoReturn

from kedro.io import AbstractDataset, DatasetError


def describe_git_commit(project_path: Path) -> str:
    """Return the commit hash of the project, with `-dirty` where tracked files were changed.

    "unknown" where there is no git or no repository: an archive can be run as well.
    """
    try:
        done = subprocess.run(
            ["git", "describe", "--always", "--dirty", "--abbrev=40", "--exclude=*"],  # noqa: S607 - the user's git
            cwd=project_path,
            capture_output=True,
            text=True,
            check=True,
            timeout=10,
        )
    except (OSError, subprocess.SubprocessError):
        return "unknown"
    return done.stdout.strip() or "unknown"


class RunProvenanceDataset(AbstractDataset[NoReturn, dict[str, Any]]):
    """Gives what no node can know: `date`, `git_commit`, `environment`, `params`. Read alone.

    `date` is that of loading, UTC, to the minute; `environment` is None where the command named
    none; `params` are those of the command, as `training.weights=none`.

    Args:
        project_root: of the project, whose commit is named.
        environment: of the command.
        params: of the command.
        metadata: for Kedro-Viz.
    """

    optional = True  # for `hooks.ClearErrors`: no stage makes it

    def __init__(
        self,
        *,
        project_root: str,
        environment: str | None = None,
        params: Sequence[str] = (),
        metadata: dict[str, Any] | None = None,
    ):
        self._project_root, self._environment = Path(project_root), environment
        self._params = list(params)
        self.metadata = metadata

    def load(self) -> dict[str, Any]:
        """Return the record."""
        return {
            "date": f"{datetime.now(UTC):%Y-%m-%d %H:%M} UTC",
            "git_commit": describe_git_commit(self._project_root),
            "environment": self._environment,
            "params": self._params,
        }

    def save(self, data: NoReturn) -> None:
        """Raise DatasetError: what a run is, no node decides."""
        raise DatasetError("run_provenance can be read alone")

    def _exists(self) -> bool:
        return True

    def _describe(self) -> dict[str, Any]:
        return {"path": str(self._project_root), "environment": self._environment}
