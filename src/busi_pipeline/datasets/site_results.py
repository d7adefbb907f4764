"""What external validations left, one file a site."""

from typing import Any

from kedro_datasets.partitions import PartitionedDataset


class SiteResultsDataset(PartitionedDataset):
    """{site: content} of a file that lies in one folder a site; empty where there is none.

    Args:
        path: folder of the sites' folders.
        file: name of the file in each.
        dataset: type (and arguments) of the file.
        metadata: for Kedro-Viz.
    """

    optional = True  # for `hooks.ClearErrors`

    def __init__(
        self,
        *,
        path: str,
        file: str,
        dataset: str | dict[str, Any],
        metadata: dict[str, Any] | None = None,
    ):
        super().__init__(path=path, dataset=dataset, filename_suffix=f"/{file}", metadata=metadata)

    def load(self) -> dict[str, Any]:
        """Return the loaded files by site, sorted."""
        self.release()  # forgets what was listed before this run wrote its own
        if not self._exists():
            return {}
        return {site: load() for site, load in sorted(super().load().items())}
