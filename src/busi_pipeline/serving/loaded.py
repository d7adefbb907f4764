"""The models that answer: loaded once, exchanged while requests run."""

import logging
import threading
from collections.abc import Mapping
from pathlib import Path
from typing import NamedTuple

import numpy as np

from busi_pipeline.caching.places import fetch_and_keep
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
        first = _load(folder)
        # One that was named is not exchanged.
        self._follows = choice in (None, *ROLES)
        self._serving = Serving(first, {})
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

        Nothing is done where the ledger has not changed. Where the model that should answer cannot
        be loaded, the one before goes on, and `problem` says why, until the next change. Another
        role is left out then.
        """
        seen = self._look()
        if not self._follows or seen == self._seen:
            return
        self._seen = seen
        try:
            self._serving, self._problem = self._follow(), ""
        except Exception as error:  # whatever it is, the model before goes on answering
            self._problem = str(error)
            logger.exception("the model stays %s", self._serving.model.version)

    def _follow(self) -> Serving:
        """Return the models that have the roles now."""
        versions = self._store.read_ledger().roles
        if self._role not in versions:
            if not versions:  # there was never a champion: the only model answers
                return self._serving
            raise BadInputError(f"no model is the {self._role}")
        before = (self._serving.model, *self._serving.roles.values())
        loaded = {model.version: model for model in before}
        model = self._find(self._role, versions[self._role], loaded)
        if model.version != self._serving.model.version:
            logger.info("%s is the %s now", model.version, self._role)
        self._serving = Serving(model, {self._role: model})  # the others may take their time
        loaded[model.version] = model
        roles = {}
        for role, version in versions.items():
            try:
                roles[role] = self._find(role, version, loaded)
            except Exception:
                logger.exception("the %s, %s, is left out", role, version)
        return Serving(model, roles)

    def _find(self, role: str, version: str, loaded: Mapping[str, PackagedModel]) -> PackagedModel:
        if version in loaded:
            return loaded[version]
        folder = self._store.kept(version)
        if not is_package(folder, version):
            raise BadInputError(f"the {role}, {version}, is not in {folder} any more")
        return _load(fetch_and_keep(folder))

    def _look(self) -> tuple[int, int] | None:
        try:
            seen = self._store.ledger_path.stat()
        except OSError:
            return None
        return seen.st_mtime_ns, seen.st_size

    def _watch(self) -> None:
        while not self._stop.wait(self._seconds):
            self.refresh()


def _load(folder: Path) -> PackagedModel:
    model = load_package(folder)
    _warm_up(model)
    return model


def _warm_up(model: PackagedModel) -> None:
    """Let the runtime plan its memory, so that the first image takes no longer than the others."""
    scan = np.random.default_rng(0).normal(100, 40, (64, 64)).clip(0, 255).astype(np.uint8)
    try:
        model.predict_pixels(scan)
    except UnusableImageError as error:
        raise BadInputError(f"{model.folder} gives no answer: {error}") from None
