"""BUS-BRA (Gómez-Flores, Gregorio-Calas, Pereira 2023, Medical Physics)."""

from collections.abc import Collection

from busi_pipeline.imaging.raw_files import RawFiles

from .base import Layout, ListedImage, Listing, find_at_top, has_folder
from .tables import list_rows, parse_box, read_table

_TABLE = "bus_data.csv"


class BusBra(Layout):
    """`Images/bus_0001-l.png`, `Masks/mask_0001-l.png`, `bus_data.csv`."""

    name = "bus_bra"
    looks_like = "bus_data.csv beside the folders Images and Masks"

    @classmethod
    def recognises(cls, paths: Collection[str], labels: Collection[str]) -> bool:
        """See Layout."""
        return find_at_top(paths, _TABLE) is not None and has_folder(paths, "Images")

    @classmethod
    def read(cls, files: RawFiles, labels: Collection[str]) -> Listing:
        """See Layout."""
        path = find_at_top(files, _TABLE) or _TABLE
        columns = ("ID", "Case", "Histology", "Pathology", "BIRADS", "Device", "Side", "BBOX")
        rows = read_table(files, path, columns).to_dict("records")
        return list_rows(
            files,
            path,
            (
                ListedImage(
                    path=f"Images/{row['ID']}",
                    label=row["Pathology"],
                    patient=row["Case"],
                    masks=(f"Masks/mask_{row['ID'].removeprefix('bus_')}",),
                    box=parse_box(row["BBOX"], path),
                    attributes={
                        "device": row["Device"],
                        "birads": row["BIRADS"],
                        "histology": row["Histology"],
                        "view": row["Side"],
                    },
                )
                for row in rows
            ),
        )
