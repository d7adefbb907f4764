"""Roles of packaged models: in the ledger, as kept folders, and as aliases in MLflow's registry."""

import getpass
import io
import logging
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, redirect_stderr
from pathlib import Path
from typing import Any

from filelock import Timeout
from kedro.io import AbstractDataset, DatasetError
from mlflow.exceptions import MlflowException
from mlflow.protos.databricks_pb2 import RESOURCE_DOES_NOT_EXIST, ErrorCode
from mlflow.tracking import MlflowClient

from busi_pipeline.caching.places import find_place
from busi_pipeline.datasets.package import log_package
from busi_pipeline.errors import BadInputError
from busi_pipeline.models.ledger import (
    CHALLENGE,
    CHALLENGER,
    CHAMPION,
    PREVIOUS,
    PROMOTE,
    ROLES,
    ROLL_BACK,
    Ledger,
    append_entry,
)
from busi_pipeline.models.model_store import ModelStore
from busi_pipeline.models.packaged import PackagedModel, load_package
from busi_pipeline.tracking.active_run import use_run

from .record import find_run

logger = logging.getLogger(__name__)

# Of the registered model in MLflow: the ledger's head, so that a ledger cut short is noticed.
_HEAD, _LINES = "ledger_head", "ledger_lines"
_VERSION = "package_version"
_REGISTRY_LINES = ("Successfully registered model ", "Created version ", "Registered model ")
_ABSENT = ErrorCode.Name(RESOURCE_DOES_NOT_EXIST)


class ModelRegistry:
    """Gives roles. The ledger decides; MLflow's aliases follow it."""

    def __init__(self, store: ModelStore, name: str, run_id: str | None = None):
        """Take the store of the models, the name of the model in MLflow's registry, and the run.

        The run is the one with which a model is registered; None is the active one.
        """
        self._store, self._name, self._run_id = store, name, run_id

    def read_ledger(self) -> Ledger:
        """Return the ledger; see models.ledger.read_ledger."""
        return self._store.read_ledger()

    def find_role(self, role: str) -> PackagedModel | None:
        """Return the model that has a role, None if none has; BadInputError if it is lost."""
        if role not in self.read_ledger().roles:
            return None
        return load_package(self._store.find(role))

    def give(
        self,
        package: PackagedModel,
        role: str,
        who: str | None,
        why: str,
        gate: Sequence[Mapping[str, Any]],
    ) -> Ledger:
        """Make a package the champion or the challenger; return the ledger.

        It is kept, and registered in MLflow with the run. The champion before it is
        the previous one then.

        Raises BadInputError where the model has the role already, or another run gives one.
        """
        with self._hold():
            ledger = self.read_ledger()
            self._refuse_another_ledger(ledger)
            roles = ledger.roles
            if roles.get(role) == package.version:
                self._set_aliases(ledger)  # an earlier run may have ended before it did
                raise BadInputError(f"{package.name} {package.version} is the {role} already.")
            if role == CHAMPION:
                if roles.get(CHALLENGER) == package.version:
                    del roles[CHALLENGER]
                if CHAMPION in roles:
                    roles[PREVIOUS] = roles[CHAMPION]
            elif roles.get(CHAMPION) == package.version:
                raise BadInputError(
                    f"{package.name} {package.version} is the champion, so it cannot challenge it."
                )
            roles[role] = package.version
            kept = self._store.keep(package.folder, package.version)
            registered = ledger.registered | self._register(kept, package)
            return self._write(
                ledger,
                PROMOTE if role == CHAMPION else CHALLENGE,
                package.version,
                package.name,
                roles,
                who,
                why,
                registered,
                gate,
            )

    def roll_back(self, who: str | None, why: str) -> Ledger:
        """Let the previous model and the champion change places; return the ledger.

        Raises BadInputError where there is no previous one, or where its package is lost.
        """
        with self._hold():
            ledger = self.read_ledger()
            self._refuse_another_ledger(ledger)
            roles = ledger.roles
            if PREVIOUS not in roles:
                raise BadInputError("there is no previous model to go back to.")
            version = roles[PREVIOUS]
            load_package(self._store.find(PREVIOUS))
            roles[CHAMPION], roles[PREVIOUS] = version, roles[CHAMPION]
            name = ledger.find_experiment(version)
            return self._write(
                ledger, ROLL_BACK, version, name, roles, who, why, ledger.registered, ()
            )

    def _hold(self) -> Any:
        try:
            return self._store.lock().acquire()
        except Timeout:
            raise BadInputError("another run gives a model a role: wait until it ends.") from None

    def _write(
        self,
        ledger: Ledger,
        action: str,
        version: str,
        experiment: str,
        roles: Mapping[str, str],
        who: str | None,
        why: str,
        registered: Mapping[str, str],
        gate: Sequence[Mapping[str, Any]],
    ) -> Ledger:
        of_roles = {v: n for v, n in registered.items() if v in roles.values()}
        ledger = append_entry(
            ledger, action, version, experiment, roles, who or _find_user(), why, of_roles, gate
        )
        self._set_aliases(ledger)
        return ledger

    def _register(self, kept: Path, package: PackagedModel) -> dict[str, str]:
        """Register a kept package in MLflow, once; return {version: number}."""
        run_id = find_run(self._run_id)
        if run_id is None:
            return {}
        known = self.read_ledger().registered.get(package.version)
        client = MlflowClient()
        if known is not None and _is_version(client, self._name, known, package.version):
            return {}
        with use_run(run_id), _hold_back_registry_lines():
            logged = log_package(kept, package.name, package.description, self._name)
        number = str(logged.registered_model_version)
        logger.info("%s is version %s of %s in MLflow", package.version, number, self._name)
        client.set_model_version_tag(self._name, number, _VERSION, package.version)
        return {package.version: number}

    def _set_aliases(self, ledger: Ledger) -> None:
        """Let MLflow's aliases say what the ledger says; warn where they cannot."""
        if not ledger.registered:
            return
        client = MlflowClient()
        try:
            there = _read_aliases(client.get_registered_model(self._name))
            for role in ROLES:
                version = ledger.roles.get(role, "")
                number = ledger.registered.get(version)
                if number is not None and _is_version(client, self._name, number, version):
                    client.set_registered_model_alias(self._name, role, number)
                elif role in there:
                    client.delete_registered_model_alias(self._name, role)
            client.set_registered_model_tag(self._name, _HEAD, ledger.head)
            client.set_registered_model_tag(self._name, _LINES, str(len(ledger.entries)))
        except MlflowException as error:
            logger.warning(
                "the roles are in the ledger; MLflow's aliases could not be set: %s",
                str(error).splitlines()[0],
            )

    def list_problems(self) -> list[str]:
        """Return what is wrong with kept packages and with MLflow's registry, a sentence each.

        The chain of the ledger is checked as well, by BadInputError.
        """
        ledger = self.read_ledger()
        problems = []
        for role in ledger.roles:
            try:
                load_package(self._store.find(role))
            except BadInputError as error:
                problems.append(str(error).rstrip("."))
        return problems + self._list_mlflow_problems(ledger)

    def warn(self) -> None:
        """Log what is wrong with the roles in MLflow, without a look into the packages."""
        for problem in self._list_mlflow_problems(self.read_ledger()):
            logger.warning("%s", problem)

    def _list_mlflow_problems(self, ledger: Ledger) -> list[str]:
        client = MlflowClient()
        try:
            model = _find_model(client, self._name)
            if model is None:
                lost = [f"MLflow's registry has no {self._name}, and the ledger has"]
                return lost if ledger.registered else []
            problems = self._find_cut(ledger, model)
            return problems + list(self._compare_aliases(ledger, client, model))
        except MlflowException as error:
            return [f"MLflow's registry cannot be asked: {str(error).splitlines()[0]}"]

    def _find_cut(self, ledger: Ledger, model: Any) -> list[str]:
        """Return that the ledger is not the one that MLflow knows, if it is not."""
        if model.tags.get(_HEAD, ledger.head) in list_heads(ledger):
            return []
        lines = model.tags.get(_LINES)
        return [
            f"{ledger.path} is not the ledger that MLflow knows, of {lines} lines: it was "
            "cut short, removed, or is of another project with the same "
            f"promotion.registered_name, {self._name}"
        ]

    def _compare_aliases(self, ledger: Ledger, client: MlflowClient, model: Any) -> Iterator[str]:
        aliases = _read_aliases(model)
        for role, version in ledger.roles.items():
            number = ledger.registered.get(version)
            if number is None:
                continue
            named = f"the {role}, {ledger.find_experiment(version)} {version}"
            if not _is_version(client, self._name, number, version):
                yield (
                    f"version {number} of {self._name}, {named}, was deleted from MLflow's "
                    "registry; the kept package still answers"
                )
            elif aliases.get(role) != number:
                yield (
                    f"in MLflow the alias {role} is on version {aliases.get(role, 'none')} of "
                    f"{self._name}, in the ledger on {number}: {named}"
                )

    def _refuse_another_ledger(self, ledger: Ledger) -> None:
        """Raise BadInputError where MLflow knows another ledger, so that none is overwritten."""
        try:
            model = _find_model(MlflowClient(), self._name)
        except MlflowException as error:
            reason = str(error).splitlines()[0]
            raise BadInputError(f"MLflow's registry cannot be asked: {reason}") from None
        problems = [] if model is None else self._find_cut(ledger, model)
        if problems:
            raise BadInputError(f"{problems[0]}. Nothing was changed.")


def list_heads(ledger: Ledger) -> set[str]:
    """Return the head after each entry: what stands before the next, and the last."""
    return {entry.before for entry in ledger.entries[1:]} | {ledger.head}


def _find_model(client: MlflowClient, name: str) -> Any:
    """Return the registered model; None where there is none."""
    try:
        return client.get_registered_model(name)
    except MlflowException as error:
        if error.error_code == _ABSENT:
            return None
        raise


@contextmanager
def _hold_back_registry_lines() -> Iterator[None]:
    """Keep off the standard error what MLflow prints of a version, which the log says in a line."""
    said = io.StringIO()
    try:
        with redirect_stderr(said):
            yield
    finally:
        for line in said.getvalue().splitlines(keepends=True):
            if not line.startswith(_REGISTRY_LINES):
                sys.stderr.write(line)


def _is_version(client: MlflowClient, name: str, number: str, version: str) -> bool:
    """Say whether the MLflow version of this number is there, and of this package."""
    try:
        return bool(client.get_model_version(name, number).tags.get(_VERSION) == version)
    except MlflowException as error:
        if error.error_code == _ABSENT:
            return False
        raise


def _read_aliases(model: Any) -> dict[str, str]:
    return {role: str(number) for role, number in model.aliases.items()}


def _find_user() -> str:
    try:
        return getpass.getuser()
    except (KeyError, OSError):
        return "unknown"


class ModelRegistryDataset(AbstractDataset[None, ModelRegistry]):
    """The registry of a project's packaged models; nodes give roles in it.

    Args:
        path: folder of the models.
        name: of the model in MLflow's registry.
        metadata: for Kedro-Viz.

    Attributes:
        run_id: of the MLflow run, which a hook sets; None for the active one.
    """

    def __init__(self, *, path: str, name: str, metadata: dict[str, Any] | None = None):
        self._path, self._name = find_place(path), name
        self.metadata = metadata
        self.run_id: str | None = None

    def load(self) -> ModelRegistry:
        """Return the registry."""
        return ModelRegistry(ModelStore(self._path), self._name, self.run_id)

    def save(self, data: None) -> None:
        """Refuse: roles are given one by one."""
        raise DatasetError("roles are given by the node that reads the registry")

    def _describe(self) -> dict[str, Any]:
        return {"path": str(self._path), "name": self._name}
