"""Where packaged models lie, and which of them is in use.

    <models>/<experiment>/package                     the last one packed of an experiment
    <models>/registry/versions/<version>/package      those that were ever given a role, kept
    <models>/registry/ledger.jsonl                    who has which role, see models.ledger

Nothing here needs TensorFlow, Kedro or MLflow.
"""

import shutil
from pathlib import Path

from filelock import FileLock

from busi_pipeline.caching.places import Place, fetch_and_keep, find_place
from busi_pipeline.errors import BadInputError
from busi_pipeline.models.ledger import CHAMPION, PREVIOUS, ROLES, Ledger, read_ledger
from busi_pipeline.models.packaged import PACKAGE_FILE, hash_package, load_package

_PACKAGE, _REGISTRY = "package", "registry"
_LOCK_SECONDS = 10.0
_PACK = "`kedro run --pipeline=package_<experiment>` writes one"


class ModelStore:
    """The packaged models of a project."""

    def __init__(self, models: str | Place):
        """Take the folder of the models, such as `data/06_models`."""
        self._models = find_place(models)

    @property
    def ledger_path(self) -> Place:
        """File of the ledger."""
        return self._models / _REGISTRY / "ledger.jsonl"

    def read_ledger(self) -> Ledger:
        """Return the ledger; see models.ledger.read_ledger."""
        return read_ledger(self.ledger_path)

    def lock(self) -> FileLock:
        """Return what one run at a time holds while it gives roles, as a context manager.

        Raises BadInputError for models in object storage, where nothing can be held.
        """
        if not isinstance(self.ledger_path, Path):
            raise BadInputError(
                f"models in {self._models} get no roles, since object storage lets two runs write "
                "one ledger: copy the package into a project whose models lie in a folder, and "
                "give it the role there. docs/how-to/cluster.md shows how."
            )
        self.ledger_path.parent.mkdir(parents=True, exist_ok=True)
        return FileLock(self.ledger_path.with_suffix(".lock"), timeout=_LOCK_SECONDS)

    def keep(self, package: Path, version: str) -> Path:
        """Copy a package to where it stays; return its folder. Nothing happens if it is there."""
        kept = self.kept(version)
        assert isinstance(kept, Path), "whoever gives a role holds the lock"
        if not is_package(kept, version):
            unfinished = kept.with_name(f"{_PACKAGE}.unfinished")
            for folder in (unfinished, kept):
                shutil.rmtree(folder, ignore_errors=True)
            shutil.copytree(package, unfinished)
            if load_package(unfinished).version != version:
                raise BadInputError(f"{package} was changed by another run: run this one again.")
            unfinished.rename(kept)
        return kept

    def kept(self, version: str) -> Place:
        """Return the folder of the kept package of a version, there or not."""
        return self._models / _REGISTRY / "versions" / version / _PACKAGE

    def find(self, choice: str | None = None) -> Path:
        """Return the folder of a package; of one in object storage, a copy.

        Args:
            choice: name of an experiment; `champion`, `challenger` or `previous`; the version of a
                kept package; or a folder. None for the champion, or where no model is one, for the
                only package there is.

        Raises BadInputError, one line, where there is none, or more than one to choose from.
        """
        return fetch_and_keep(self._find(choice))

    def _find(self, choice: str | None) -> Place:
        if choice in ROLES:
            return self._find_role(choice)
        packed = sorted(file.parent for file in self._models.glob(f"*/{_PACKAGE}/{PACKAGE_FILE}"))
        names = ", ".join(folder.parent.name for folder in packed) or "none"
        if choice is not None:
            for folder in (self._models / choice / _PACKAGE, self.kept(choice), find_place(choice)):
                if (folder / PACKAGE_FILE).is_file():
                    return folder
            raise BadInputError(
                f"no packaged model {choice!r}: it must be one of those in {self._models} "
                f"({names}), {', '.join(ROLES)}, a kept version, or a folder with a "
                f"{PACKAGE_FILE}. {_PACK}."
            )
        if CHAMPION in self.read_ledger().roles:
            return self._find_role(CHAMPION)
        if len(packed) == 1:
            return packed[0]
        if packed:
            raise BadInputError(
                f"{self._models} has several packaged models, and none is the champion: name one "
                f"of {names}."
            )
        raise BadInputError(
            f"no packaged model in {self._models}: {_PACK}, from a trained experiment."
        )

    def _find_role(self, role: str) -> Place:
        ledger = self.read_ledger()
        version = ledger.roles.get(role)
        if version is None:
            raise BadInputError(
                f"no model is the {role}: `kedro run --pipeline=promote_<experiment>` makes one "
                "the champion."
            )
        if is_package(self.kept(version), version):
            return self.kept(version)
        back = ledger.roles.get(PREVIOUS)
        instead = (
            f", or go back to {ledger.find_experiment(back)} {back} with `kedro run "
            "--pipeline=rollback --params promotion.why=...`"
            if back and role == CHAMPION
            else ""
        )
        raise BadInputError(
            f"the {role}, {ledger.find_experiment(version)} {version}, is not in "
            f"{self.kept(version)} any more: copy it there from a backup{instead}."
        )


def is_package(folder: Place, version: str) -> bool:
    """Say whether a folder holds the package of a version; its files are checked on loading."""
    return (folder / PACKAGE_FILE).is_file() and hash_package(folder) == version


def find_package(models: str | Place, choice: str | None = None) -> Path:
    """Return the folder of a package; see ModelStore.find."""
    return ModelStore(models).find(choice)
