"""What an interrupted run, or a disk, has left of files: it counts as absent."""

import logging
from collections.abc import Iterable, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

from kedro.framework import project
from kedro.framework.hooks import hook_impl
from kedro.io import DataCatalog
from kedro.pipeline import Pipeline

from busi_pipeline.caching.whole_files import remove_abandoned
from busi_pipeline.datasets.damage import find_damage
from busi_pipeline.trained_models import find_records

logger = logging.getLogger(__name__)


class DamagedFiles:
    """Lets files that cannot be read count as absent, before anything asks for them."""

    def __init__(self) -> None:
        self._folders: list[Path] = []

    @hook_impl(tryfirst=True)
    def before_pipeline_run(
        self, run_params: Mapping[str, Any], pipeline: Pipeline, catalog: DataCatalog
    ) -> None:
        """Set damaged files aside, and remove what interrupted processes left; the log says so."""
        records = find_records(pipeline, bool(run_params.get("only_missing_outputs")))
        made = {name for other in project.pipelines.values() for name in other.all_outputs()}
        names = sorted(pipeline.datasets() & made | set(records))  # not the user's own files
        files = [path for name in names for path in _list_files(catalog, name)]
        for path in files:
            problem = find_damage(path)
            if problem:
                aside = path.with_name(f"{path.name}.damaged")
                with suppress(FileNotFoundError):  # another run was first
                    path.replace(aside)
                logger.warning(
                    "%s is damaged (%s): it counts as absent, and lies in %s now",
                    *(path, problem, aside.name),
                )
        self._folders = _list_roots(path.parent for path in files)
        self._remove_abandoned()

    @hook_impl
    def after_pipeline_run(self) -> None:
        """Remove what workers that were lost meanwhile have left."""
        self._remove_abandoned()

    def _remove_abandoned(self) -> None:
        for folder in self._folders:
            remove_abandoned(folder)


def _list_files(catalog: DataCatalog, name: str) -> list[Path]:
    """Return the file of a dataset, where it has one."""
    path: Any = getattr(catalog.get(name), "_filepath", None)
    return [] if path is None else [Path(str(path))]


def _list_roots(folders: Iterable[Path]) -> list[Path]:
    """Return the folders that lie in no other one and are there."""
    roots: list[Path] = []
    for folder in sorted(set(folders)):
        if folder.is_dir() and not any(root in folder.parents for root in roots):
            roots.append(folder)
    return roots
