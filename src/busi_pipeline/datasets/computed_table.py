"""A table that takes minutes to make, and is made again only where what it depends on changed."""

import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd
from kedro_datasets.pandas import CSVDataset

from busi_pipeline.fingerprints import hash_values


@dataclass(frozen=True)
class TableOnDemand:
    """A table on its way to disk.

    Attributes:
        recipe: everything that decides the table (inputs, settings, code, libraries), JSON-like.
        compute: makes it. Not called where the table of this recipe is there already.
    """

    recipe: dict[str, Any]
    compute: Callable[[], pd.DataFrame]


class ComputedTableDataset(CSVDataset):
    """`<filepath>` and, beside it, `<filepath>.recipe.json`, the recipe it was made by.

    The recipe is written last, with the hash of the file, so that neither a run that was stopped
    nor an edited file passes for the table of the recipe.
    """

    def save(self, data: TableOnDemand) -> None:
        """Compute and write the table, unless the one that is there has this recipe."""
        path = Path(str(self._filepath))
        note = path.with_name(path.name + ".recipe.json")
        wanted = hash_values(data.recipe)
        if path.is_file() and note.is_file():
            kept = json.loads(note.read_text())
            if (kept["recipe_sha256"], kept["table_sha256"]) == (wanted, _hash_file(path)):
                self._logger.info("%s: nothing it depends on changed; kept", path.name)
                return
        super().save(data.compute())
        note.write_text(
            json.dumps(
                {
                    "recipe_sha256": wanted,
                    "table_sha256": _hash_file(path),
                    "recipe": data.recipe,
                },
                indent=2,
            )
        )


def _hash_file(path: Path) -> str:
    return hash_values(path.read_text())
