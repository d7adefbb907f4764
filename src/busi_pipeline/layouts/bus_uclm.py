"""BUS-UCLM (Vallez et al. 2025, Scientific Data)."""

from collections.abc import Collection, Hashable, Mapping

from busi_pipeline.imaging.raw_files import RawFiles

from .base import Layout, ListedImage, Listing, find_at_top, has_folder
from .tables import list_rows, read_table

_TABLE = "INFO.csv"
_PATIENT_LETTERS = 4
# What a picture holds beside the grey image, said by yes or no.
_OVERLAYS = ("Doppler", "Marks", "Combined")


class BusUclm(Layout):
    """`images/ALWI_000.png`, `masks/ALWI_000.png` in colour, `INFO.csv`.

    The first four letters of an image name are its patient. Whether a picture is a Doppler image,
    has marks or combines several becomes its `overlay`.
    """

    name = "bus_uclm"
    looks_like = "INFO.csv beside the folders images and masks"

    @classmethod
    def recognises(cls, paths: Collection[str], labels: Collection[str]) -> bool:
        """See Layout."""
        folders = all(has_folder(paths, name) for name in ("images", "masks"))
        return folders and find_at_top(paths, _TABLE) is not None

    @classmethod
    def read(cls, files: RawFiles, labels: Collection[str]) -> Listing:
        """See Layout."""
        path = find_at_top(files, _TABLE) or _TABLE
        rows = read_table(files, path, ("Image", "Label"), _OVERLAYS).to_dict("records")
        return list_rows(
            files,
            path,
            (
                ListedImage(
                    path=f"images/{row['Image']}",
                    label=row["Label"],
                    patient=row["Image"][:_PATIENT_LETTERS],
                    masks=(f"masks/{row['Image']}",),
                    attributes={"overlay": _list_overlays(row)},
                )
                for row in rows
            ),
        )


def _list_overlays(row: Mapping[Hashable, str]) -> str:
    """Return `doppler, marks` of a row with these two said to be there."""
    said = (name for name in _OVERLAYS if row[name].strip().casefold() in ("yes", "true", "1", "x"))
    return ", ".join(name.lower() for name in said)
