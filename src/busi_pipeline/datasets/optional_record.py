"""A record that may be there or not: one of an experiment that was not run."""

from typing import Any

from kedro_datasets.json import JSONDataset


class OptionalRecordDataset(JSONDataset):
    """`json.JSONDataset` that loads None where there is no file."""

    optional = True  # for `hooks.ClearErrors`

    def load(self) -> Any:
        """Return the record, or None where there is none."""
        return super().load() if self._exists() else None
