"""Kedro's context, with parameters that are checked already."""

from typing import Any

from kedro.framework import project
from kedro.framework.context import KedroContext
from kedro.io import CatalogProtocol, DatasetError

from .loader import ProjectConfigLoader, activate


class ProjectContext(KedroContext):
    """Takes the parameters as the config loader gives them: checked, frozen objects.

    Kedro would build objects of them by the type hints of all nodes. It takes dictionaries alone
    for that, not objects, and to read the hints it imports every pipeline.

    A new context makes its parameters those of the pipelines: experiments become pipelines, so the
    registry needs the parameters, and Kedro calls it without arguments. Each session has its own;
    the last one opened or run is the active one. A hook would not do: Kedro-Viz runs none.
    """

    def __init__(self, *args: Any, **kwargs: Any):
        super().__init__(*args, **kwargs)
        loader = self.config_loader
        assert isinstance(loader, ProjectConfigLoader)
        loader.project_root = self.project_path  # where the catalog's relative paths lie, too
        loader["parameters"]  # checked before anything else happens
        activate(loader)
        registered = project.pipelines
        requested = registered._requested_pipelines  # `configure` forgets what `kedro run` asks for
        registered.configure(registered._pipelines_module)
        registered.set_requested(requested)

    @property
    def params(self) -> dict[str, Any]:
        """Return `config.checking.Parameters`."""
        return self.config_loader["parameters"]

    def _get_catalog(self, *args: Any, **kwargs: Any) -> CatalogProtocol:
        """Make the catalog; raises BadInputError, one line, for a wrong entry."""
        try:
            return super()._get_catalog(*args, **kwargs)
        except DatasetError as error:
            assert isinstance(self.config_loader, ProjectConfigLoader)
            raise self.config_loader.describe_entry(error) from error
