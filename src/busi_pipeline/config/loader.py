"""Where the configuration lies, what the machine adds to it, and which one is active.

Kedro builds one config loader a session. The session's context makes it the active one before the
pipelines are registered, so that the registry sees the experiments of the very session.
"""

import os
import re
import threading
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple, Self

import yaml
from kedro.config import MissingConfigException, OmegaConfigLoader
from kedro.io import DatasetError
from kedro.utils import find_kedro_project
from omegaconf import OmegaConf
from omegaconf.errors import OmegaConfBaseException
from pydantic import BaseModel

from busi_pipeline.caching.places import find_place
from busi_pipeline.errors import BadInputError, BadSettingError, find_bad_input

from .checking import Parameters, check_parameters
from .given import list_given
from .messages import check_settings, suggest
from .places import find_fault, find_line, has_setting, list_origins, list_parents
from .sites import (
    find_external_site,
    find_prediction_folder,
    list_training_folders,
    make_name,
)

LOADER_ARGUMENTS: dict[str, Any] = {
    "base_env": "base",
    "default_run_env": "local",
    # An environment that overrides one key must not delete the others beside it.
    "merge_strategy": {"parameters": "soft", "globals": "soft", "mlflow": "soft"},
}

# As kedro-mlflow would add it, which does so later.
_MLFLOW_PATTERNS = ["mlflow*", "mlflow*/**", "**/mlflow*"]

# In Kedro's words on a catalog entry.
_DATASET = re.compile(r"[Dd]ataset '([^']+)'")

# OmegaConf has one set of resolvers a process: a loader binds its own each time it reads.
_resolvers_are_bound = threading.RLock()
_active: "ProjectConfigLoader | None" = None


def find_project_root() -> Path:
    """Return the Kedro project around the current folder, else the current folder."""
    return Path(find_kedro_project(Path.cwd()) or Path.cwd()).resolve()


class Snapshot(NamedTuple):
    """What a session has read, for other processes: files that change meanwhile change nothing.

    Credentials are no part of it; each process reads its own.
    """

    conf_source: str
    env: str | None
    runtime_params: dict[str, Any]
    project_root: Path
    parameters: Parameters
    catalog: dict[str, Any]


class ProjectConfigLoader(OmegaConfigLoader):
    """Kedro's loader with checked parameters and with resolvers for what belongs to the machine.

    `loader["parameters"]` gives `checking.Parameters`, computed once.

    Attributes:
        project_root: absolute path under which outputs and the local MLflow store lie: the project
            that the configuration is of, else the one around the current folder, else that folder.
            A session sets its own.
    """

    def __init__(self, conf_source: str | Path, **kwargs: Any):
        around = find_kedro_project(Path(conf_source).resolve())
        self.project_root = Path(around).resolve() if around else find_project_root()
        self._parameters: Parameters | None = None
        with _resolvers_are_bound, _quiet_resolvers():
            super().__init__(str(conf_source), **kwargs)
        self.config_patterns.setdefault("mlflow", _MLFLOW_PATTERNS)

    def __getitem__(self, key: str) -> Any:
        """Return one kind of configuration, `parameters` as checked objects.

        Raises BadInputError, one line, where a file cannot be read or a parameter is wrong;
        MissingConfigException where there are no files of another kind.
        """
        with _resolvers_are_bound, _quiet_resolvers():
            self._bind_resolvers()
            if key != "parameters":
                return self._read(key)
            if self._parameters is None:
                read = self._read(key)
                try:
                    checked = check_parameters(read, self.runtime_params)
                except BadSettingError as error:
                    raise self._add_place(key, error, error.path) from None
                self._check_banner(checked)
                self._parameters = checked
            return self._parameters

    def __setitem__(self, key: str, value: Any) -> None:
        """Replace one kind of configuration; parameters are checked when they are read."""
        if key == "parameters":
            self._parameters = None
        super().__setitem__(key, value)

    def take_snapshot(self) -> Snapshot:
        """Return what has been read, paths of the catalog resolved."""
        return Snapshot(
            str(self.conf_source),
            self.env,
            dict(self.runtime_params or {}),
            self.project_root,
            self["parameters"],
            dict(self["catalog"]),
        )

    @classmethod
    def from_snapshot(cls, snapshot: Snapshot) -> Self:
        """Return a loader that gives what another one has read."""
        loader = cls(
            snapshot.conf_source,
            env=snapshot.env,
            runtime_params=snapshot.runtime_params,
            **LOADER_ARGUMENTS,
        )
        loader.project_root = snapshot.project_root
        loader["catalog"] = snapshot.catalog
        loader._parameters = snapshot.parameters
        return loader

    def check(self, key: str, schema: type[BaseModel] | None = None) -> None:
        """Read one kind of configuration, and hold it against a schema.

        Raises BadInputError, one line, and MissingConfigException where there are no files of it.
        """
        read = self[key]
        try:
            if schema is not None:
                check_settings(schema, read, key)
        except BadSettingError as error:
            raise self._add_place(key, error, error.path.partition(".")[2]) from None

    def describe_entry(self, error: DatasetError) -> BadInputError:
        """Say in one line which entry of the catalog Kedro cannot make a dataset of, and why."""
        said = " ".join(str(error).partition("\nHint")[0].split())
        for name in _DATASET.findall(said):
            place = self._find_place("catalog", name)
            if place is not None:
                return BadInputError(f"{place}: {said}")
        return BadInputError(f"the catalog of {self.conf_source}: {said}")

    def _add_place(self, key: str, error: BadSettingError, setting: str) -> BadInputError:
        """Return the error with the place in front, where the setting has one."""
        place = self._find_place(key, setting)
        return BadInputError(f"{place}: {error}" if place else str(error))

    def _read(self, key: str) -> dict[str, Any]:
        if not self.env and not self._has_environment(self.default_run_env):
            self.default_run_env = self.base_env  # a clone or an archive without `local`
        try:
            return super().__getitem__(key)
        except MissingConfigException:
            if key != "parameters":
                raise
            raise BadInputError(self._describe_missing()) from None
        except (
            *(yaml.YAMLError, OmegaConfBaseException),
            *(ValueError, TypeError, AttributeError, OSError),
        ) as error:
            behind = find_bad_input(error)
            raise behind or BadInputError(self._describe_unreadable(key, error)) from error

    def _describe_unreadable(self, key: str, error: Exception) -> str:
        """Say in one line which file cannot be read, where, and why."""
        for path in self._list_files(key):
            try:
                fault = find_fault(self._fs.cat_file(path))
            except OSError as unread:
                fault = f": this cannot be read: {unread.strerror or unread}."
            if fault:
                return f"{self._shorten(path)}{fault}"
        setting = getattr(error, "full_key", None)
        if setting:
            place = self._find_place(key, setting)
            first = str(error).splitlines()[0]
            return f"{place or f'the {key} of {self.conf_source}'}: {setting}: {first}"
        line = " ".join(str(error).split())
        return f"cannot read the {key} of {self.conf_source}: {line}"

    def _find_place(self, key: str, setting: str) -> str | None:
        """Return where a setting stands: `--params`, or file and line; None where it is nowhere.

        Of a setting that is missing, what it is missing in.
        """
        origins = list_origins(setting)
        if key == "parameters" and any(has_setting(self.runtime_params, own) for own in origins):
            return "--params"
        texts = {path: self._fs.cat_file(path).decode("utf-8") for path in self._list_files(key)}
        for sought in [*origins, *(above for own in origins for above in list_parents(own))]:
            for path, text in texts.items():
                line = find_line(text, sought)
                if line is not None:
                    return f"{self._shorten(path)}, line {line}"
        return None

    def _list_files(self, key: str) -> list[str]:
        """Return the files of one kind of configuration: the environment's, then those of base."""
        names = dict.fromkeys([self.env or self.default_run_env, self.base_env])
        found: dict[str, None] = {}
        for name in names:
            folder = self._get_conf_env_path(name)
            for pattern in self.config_patterns[key]:
                for path in sorted(self._fs.glob(Path(f"{folder}/{pattern}").as_posix())):
                    if self._is_valid_config_path(Path(path)):
                        found[path] = None
        return list(found)

    def _shorten(self, path: str) -> str:
        """Return a path from the project's folder on, where it lies in it."""
        try:
            return Path(path).relative_to(self.project_root).as_posix()
        except ValueError:
            return path

    def _check_banner(self, parameters: Parameters) -> None:
        """Raise BadInputError where the plots, which go by globals.yml, would say otherwise."""
        synthetic = parameters["dataset"].synthetic
        if self._globals.get("synthetic", synthetic) != synthetic:
            raise BadInputError(
                f"dataset.synthetic is {str(synthetic).lower()}, but not in globals.yml, which the "
                "plots go by: set `synthetic` in globals.yml of the environment alone."
            )

    def _bind_resolvers(self) -> None:
        self._register_globals_resolver()
        resolvers: dict[str, Callable[..., Any]] = {
            "env": _resolve_variable,
            "weights_choice": _resolve_weights_choice,
            "project_root": self.project_root.as_posix,
            "artifact_location": self._resolve_artifact_location,
            "run_environment": self._resolve_run_environment,
            "run_params": self._resolve_run_params,
            "training_folders": self._resolve_training_folders,
            "external_folders": self._resolve_external_folders,
            "external_site": self._resolve_external_site,
            "prediction_folders": self._resolve_prediction_folders,
            "prediction_name": self._resolve_prediction_name,
            "prediction_model": self._resolve_prediction_model,
            "registered_name": self._resolve_registered_name,
            "monitoring_labels": self._resolve_monitoring_labels,
            "folders_to_keep": self._resolve_folders_to_keep,
            "dicom_settings": self._resolve_dicom_settings,
            **(self._custom_resolvers or {}),
        }
        for name, resolver in resolvers.items():
            OmegaConf.register_new_resolver(name, resolver, replace=True)

    def _resolve_run_environment(self) -> str | None:
        """`${run_environment:}`: that of the command (`--env`); None where it named none."""
        return self.env

    def _resolve_run_params(self) -> list[str]:
        """`${run_params:}`: the parameters of the command (`--params`), as `split.seed=1`."""
        return list_given(self.runtime_params or {})

    def _resolve_artifact_location(self) -> str | None:
        """`${artifact_location:}`: beside the local store; None leaves it to a tracking server."""
        if os.environ.get("MLFLOW_TRACKING_URI", "").strip():
            return None
        return (self.project_root / "mlartifacts").as_uri()

    def _resolve_training_folders(self) -> dict[str, str]:
        """`${training_folders:}`: {site: folder} of the sites that models learn from."""
        parameters = self["parameters"]
        return list_training_folders(parameters["sites"], parameters["ingestion"])

    def _resolve_external_folders(self) -> dict[str, str]:
        """`${external_folders:}`: {site: folder} of the external site; empty for none."""
        parameters = self["parameters"]
        found = find_external_site(parameters["external"], parameters["sites"])
        return {found[0]: found[1].folder} if found else {}

    def _resolve_external_site(self) -> str:
        """`${external_site:}`: its name, for paths; `unnamed` where none is named."""
        return next(iter(self._resolve_external_folders()), "unnamed")

    def _resolve_prediction_folders(self) -> dict[str, str]:
        """`${prediction_folders:}`: {name: folder} of the images to predict; empty for none."""
        folder = find_prediction_folder(self["parameters"]["prediction"])
        return {} if folder is None else {"prediction": folder}

    def _resolve_prediction_name(self) -> str:
        """`${prediction_name:}`: what its outputs are called; `unnamed` where none is named."""
        folder = self["parameters"]["prediction"].folder
        return make_name(folder) if folder else "unnamed"

    def _resolve_prediction_model(self) -> str | None:
        """`${prediction_model:}`: what is asked; None for the champion or the only one."""
        return self["parameters"]["prediction"].model

    def _resolve_registered_name(self) -> str:
        """`${registered_name:}`: of the model in MLflow's registry."""
        return self["parameters"]["promotion"].registered_name

    def _resolve_monitoring_labels(self) -> str:
        """`${monitoring_labels:}`: the table of labels that came later; a name of none."""
        labels = self["parameters"]["monitoring"].labels
        if labels is None:
            return "no labels.csv"
        table = find_place(labels)
        if not table.is_file():
            raise BadInputError(f"monitoring.labels: there is no table {labels}.")
        return str(table.resolve() if isinstance(table, Path) else table)

    def _resolve_folders_to_keep(self) -> list[str]:
        """`${folders_to_keep:}`: names of folders that are classes, so no patient's."""
        parameters = self["parameters"]
        return [*parameters["classes"], *parameters["ingestion"].class_names]

    def _resolve_dicom_settings(self) -> dict[str, Any]:
        """`${dicom_settings:}`: how DICOM files are read, and the largest picture."""
        ingestion = self["parameters"]["ingestion"]
        return ingestion.dicom.model_dump() | {"max_pixels": ingestion.max_pixels}

    def _has_environment(self, name: str) -> bool:
        if self._protocol not in ("file", "tar", "zip"):
            return True  # a remote store: Kedro says what is missing
        try:
            return bool(self._fs.isdir(Path(self._get_conf_env_path(name)).as_posix()))
        except (OSError, IndexError):
            return False

    def _describe_missing(self) -> str:
        source = Path(self.conf_source)
        if not source.exists():
            return (
                f"no configuration at {source}: run in the project's folder, or name it with "
                "--conf-source=<folder, or the conf-busi_pipeline.tar.gz of `kedro package`>."
            )
        if self.env and not self._has_environment(self.env):
            folder = Path(self._get_conf_env_path("")).as_posix()
            there = sorted(
                Path(p).name for p in self._fs.ls(folder, detail=False) if self._fs.isdir(p)
            )
            meant = suggest(self.env, there, "--env=")
            return f"no environment {self.env!r} in {source}.{meant} There are {', '.join(there)}."
        return f"no parameters in {source}: is it a folder with {self.base_env}/parameters_*.yml?"


@contextmanager
def _quiet_resolvers() -> Iterator[None]:
    """Ignore that OmegaConf has renamed a function, which Kedro calls by the name of old."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="register_new_resolver")
        yield


def _resolve_variable(name: str, default: str | None = None) -> str | None:
    """`${env:NAME,default}`: an environment variable with `~` expanded; empty counts as unset."""
    value = os.environ.get(name, "").strip()
    return str(Path(value).expanduser()) if value.startswith("~") else value or default


def _resolve_weights_choice() -> str:
    """`${weights_choice:}`: the folder in BUSI_WEIGHTS_DIR if set, else Keras' download."""
    return "directory" if os.environ.get("BUSI_WEIGHTS_DIR", "").strip() else "imagenet"


def activate(loader: ProjectConfigLoader | None) -> None:
    """Make a session's loader the one that the registry reads; None where no session is open."""
    global _active  # noqa: PLW0603  # Kedro calls `register_pipelines` without arguments
    _active = loader


def active_loader() -> ProjectConfigLoader:
    """Return the open session's loader, else one of the project around the current folder.

    Without a session, as in `kedro registry list`, the environment is KEDRO_ENV.
    """
    if _active is not None:
        return _active
    env = os.environ.get("KEDRO_ENV") or None
    return ProjectConfigLoader(find_project_root() / "conf", env=env, **LOADER_ARGUMENTS)


def load_active_parameters() -> Parameters:
    """Return the checked parameters of `active_loader`."""
    return active_loader()["parameters"]


@contextmanager
def allow_dots() -> Iterator[None]:
    """Let nodes outside a namespace read what an experiment made.

    Kedro wants dots in names of datasets from namespaces alone, and warns. These are of namespaces.
    """
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="One or more dataset names contain '.'")
        yield
