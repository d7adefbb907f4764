"""The project's configuration: where it lies, what the environment may override, what is active.

Kedro builds one config loader a session, before it asks `register_pipelines` for the pipelines.
This loader remembers itself, so that the registry can read the experiment rows of the very
environment that is being run, and offers resolvers for settings that come from the machine.
"""

import os
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cached_property
from pathlib import Path
from typing import Any, ClassVar

from kedro.config import OmegaConfigLoader
from kedro.utils import find_kedro_project

_SOURCE_ROOT = Path(__file__).resolve().parents[2]


def find_project_root() -> Path:
    """Return the Kedro project around the current directory, else the one this package lies in."""
    return Path(find_kedro_project(Path.cwd()) or _SOURCE_ROOT)


def _resolve_env(name: str, default: str | None = None) -> str | None:
    """`${env:NAME,default}`: an environment variable with `~` expanded; empty counts as unset."""
    value = os.environ.get(name, "").strip()
    return str(Path(value).expanduser()) if value.startswith("~") else value or default


def _resolve_weights_choice() -> str:
    """`${weights_choice:}`: the folder in BUSI_WEIGHTS_DIR if set, else Keras' download."""
    return "directory" if os.environ.get("BUSI_WEIGHTS_DIR", "").strip() else "imagenet"


def _resolve_project_root() -> str:
    """`${project_root:}`: the project whose configuration is being read."""
    loader = ProjectConfigLoader.latest
    return (loader.project_root if loader else find_project_root()).as_posix()


def _resolve_artifact_location() -> str | None:
    """`${artifact_location:}`: beside the local store; None leaves it to a tracking server."""
    if os.environ.get("MLFLOW_TRACKING_URI", "").strip():
        return None
    return (Path(_resolve_project_root()) / "mlartifacts").as_uri()


# Resolvers are OmegaConf's, one set a process: what belongs to a project is looked up when asked.
RESOLVERS = {
    "env": _resolve_env,
    "project_root": _resolve_project_root,
    "artifact_location": _resolve_artifact_location,
    "weights_choice": _resolve_weights_choice,
}


class ProjectConfigLoader(OmegaConfigLoader):
    """Kedro's loader plus resolvers for what belongs to the machine."""

    latest: ClassVar["ProjectConfigLoader | None"] = None

    def __init__(self, conf_source: str, **kwargs: Any):
        root = find_kedro_project(Path(conf_source).resolve()) or find_project_root()
        self.project_root = Path(root).resolve()
        super().__init__(conf_source, **kwargs)
        ProjectConfigLoader.latest = self

    @cached_property
    def parameters(self) -> dict[str, Any]:
        """What `self["parameters"]` reads anew from all files each time it is asked."""
        return dict(self["parameters"])


@contextmanager
def allow_dots() -> Iterator[None]:
    """Let nodes outside a namespace read what an experiment made.

    Kedro wants dots in names of datasets from namespaces alone, and warns. These are of namespaces.
    """
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="One or more dataset names contain '.'")
        yield


def load_active_parameters() -> dict[str, Any]:
    """Return the parameters of the session being run, or of the project's default environment."""
    loader = ProjectConfigLoader.latest
    conf_source = find_project_root() / "conf"
    if loader is None or Path(loader.conf_source).resolve() != conf_source.resolve():
        # `kedro registry list` asks for pipelines without opening a session.
        from kedro.framework.project import settings

        loader = ProjectConfigLoader(
            str(conf_source), env=os.environ.get("KEDRO_ENV"), **settings.CONFIG_LOADER_ARGS
        )
    return loader.parameters
