"""Kedro's context, with parameters that are checked already."""

from typing import Any

from kedro.framework.context import KedroContext


class ProjectContext(KedroContext):
    """Takes the parameters as the config loader gives them: checked, frozen objects.

    Kedro would build objects of them by the type hints of all nodes. It takes dictionaries alone
    for that, not objects, and to read the hints it imports every pipeline.
    """

    @property
    def params(self) -> dict[str, Any]:
        """Return `config.checking.Parameters`."""
        return self.config_loader["parameters"]
