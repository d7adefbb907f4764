"""The models that answer: loaded once, exchanged while requests run."""

import logging
import threading
from collections.abc import Mapping
from pathlib import Path
from typing import NamedTuple

import numpy as np

from busi_pipeline.errors import BadInputError
from busi_pipeline.imaging.decoding import UnusableImageError
from busi_pipeline.models.ledger import CHAMPION, ROLES
from busi_pipeline.models.model_store import ModelStore, is_package
from busi_pipeline.models.packaged import PackagedModel, load_package

logger = logging.getLogger(__name__)


class Serving(NamedTuple):
    """Attributes: `model` that answers; `roles`, {role: model} of all that are loaded."""

    model: PackagedModel
    roles: Mapping[str, PackagedModel]


class LoadedModels:
    """The model that answers, and those with other roles.

    A request takes the model once and keeps it to its end, so an exchange loses none. The champion
    before stays loaded as long as it has the role `previous`: going back needs no loading.
    """

    def __init__(self, models: Path, choice: str | None, seconds: float):
        """Load the model that answers; the others follow in `watch`.

        Args:
            models: folder of the packaged models.
            choice: see ModelStore.find. None, or a role, follows the ledger.
            seconds: between two looks at it.

        Raises BadInputError, one line, where there is no such model.
        """
        self._store, self._seconds = ModelStore(models), seconds
        self._role = choice if choice in ROLES else CHAMPION
        folder = self._store.find(choice)
        self._loaded: dict[str, PackagedModel] = {}
        first = self._load(folder)
        roles = self._store.read_ledger().roles
        # One that was named is not exchanged.
        self._follows = roles.get(self._role) == first.version and choice in (None, *ROLES)
        self._serving = Serving(first, {self._role: first} if self._follows else {})
        self._seen: tuple[int, int] | None = None
        self._problem = ""
        self._stop = threading.Event()
        self._thread: threading.Thread | None = None

    @property
    def serving(self) -> Serving:
        """The models now."""
        return self._serving

    @property
    def problem(self) -> str:
        """Why the model that answers is not the one that the ledger names; "" where it is."""
        return self._problem

    def start(self) -> None:
        """Look at the ledger from now on, in a thread of its own."""
        self._thread = threading.Thread(target=self._watch, name="roles", daemon=True)
        self._thread.start()

    def stop(self) -> None:
        """Look no more."""
        self._stop.set()
        if self._thread is not None:
            self._thread.join()

    def refresh(self) -> None:
        """Load what has a role now and was not loaded; let go what has none.

        Where that fails, the models stay as they are and `problem` says why.
        """
        seen = self._look()
        if not self._follows or (seen == self._seen and not self._problem):
            return
        try:
            versions = self._store.read_ledger().roles
            roles = {role: self._find(role, version) for role, version in versions.items()}
            serving = Serving(roles[self._role], roles)
        except (BadInputError, OSError, KeyError) as error:
            problem = f"no model is the {self._role}" if isinstance(error, KeyError) else str(error)
            if problem != self._problem:
                logger.error("the model stays %s: %s", self._serving.model.version, problem)
            self._problem, self._seen = problem, seen
            return
        if serving.model.version != self._serving.model.version:
            logger.info("%s is the %s now", serving.model.version, self._role)
        self._serving, self._problem, self._seen = serving, "", seen
        self._loaded = {model.version: model for model in roles.values()}

    def _find(self, role: str, version: str) -> PackagedModel:
        if version in self._loaded:
            return self._loaded[version]
        folder = self._store.kept(version)
        if not is_package(folder, version):
            raise BadInputError(f"the {role}, {version}, is not in {folder} any more")
        return self._load(folder)

    def _load(self, folder: Path) -> PackagedModel:
        model = load_package(folder)
        _warm_up(model)
        self._loaded[model.version] = model
        return model

    def _look(self) -> tuple[int, int] | None:
        try:
            seen = self._store.ledger_path.stat()
        except OSError:
            return None
        return seen.st_mtime_ns, seen.st_size

    def _watch(self) -> None:
        while not self._stop.wait(self._seconds):
            self.refresh()


def _warm_up(model: PackagedModel) -> None:
    """Let the runtime plan its memory, so that the first image takes no longer than the others."""
    scan = np.random.default_rng(0).normal(100, 40, (64, 64)).clip(0, 255).astype(np.uint8)
    try:
        model.predict_pixels(scan)
    except UnusableImageError as error:
        raise BadInputError(f"{model.folder} gives no answer: {error}") from None
