"""A table that may be there or not: one beside the data, or of an experiment that was not run."""

import pandas as pd
from kedro_datasets.pandas import CSVDataset


class OptionalTableDataset(CSVDataset):
    """`pandas.CSVDataset` that loads None where there is no file."""

    optional = True  # for `hooks.ClearErrors`

    def load(self) -> pd.DataFrame | None:
        """Return the table, or None where there is none."""
        return super().load() if self._exists() else None
