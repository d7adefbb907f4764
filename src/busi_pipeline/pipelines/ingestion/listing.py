"""List the images of each site, by names and tables alone."""

from collections import Counter
from collections.abc import Collection, Mapping
from dataclasses import dataclass, replace

from busi_pipeline.config.schemas import IngestionSettings
from busi_pipeline.config.sites import AUTO
from busi_pipeline.errors import BadInputError
from busi_pipeline.imaging.raw_files import RawFiles
from busi_pipeline.layouts import (
    LAYOUTS,
    Layout,
    ListedImage,
    go_below,
    is_picture,
    match_label,
    recognise_layout,
)
from busi_pipeline.stats.classes import Classes


@dataclass(frozen=True)
class ListedSite:
    """One site, before a picture is decoded.

    Attributes:
        site: its name.
        layout: how its folder is laid out.
        start: before its keys of the raw images and its ids: `<site>/` where there are several.
        folder: between `start` and the paths that the layout sees; ends in `/`, or is "".
        frames: paths, as the layout sees them, of DICOM frames; `folder` is no part of their keys.
        images: those whose label is a class; the label is the class.
        quarantine: {key of the raw images: reason}.
        other_labels: images by label that is no class.
        n_pictures: of all files, those named as pictures.
    """

    site: str
    layout: type[Layout]
    start: str
    folder: str
    frames: Collection[str]
    images: list[ListedImage]
    quarantine: dict[str, str]
    other_labels: Counter[str]
    n_pictures: int

    def key(self, path: str) -> str:
        """Return the key of the raw images of a path that the layout sees."""
        return self.start + path if path in self.frames else self.start + self.folder + path


def list_sites(
    raw_files: RawFiles,
    layouts: Mapping[str, str],
    ingestion: IngestionSettings,
    classes: Classes,
) -> list[ListedSite]:
    """List the images of every site.

    Args:
        raw_files: of one site by their paths in its folder, of several below `<site>/`.
        layouts: {site: name of its layout}.
        ingestion: `class_names`.
        classes: that labels must be.

    Raises BadInputError for a folder that is not laid out so, a table that cannot be read, and for
    names of classes that are none.
    """
    for label, name in ingestion.class_names.items():
        if name not in classes.names:
            raise BadInputError(
                f"ingestion.class_names: {label} is to be {name!r}, which is no class; classes: "
                f"{', '.join(classes)}."
            )
    several = len(layouts) > 1
    listed = []
    for site, layout in layouts.items():
        try:
            listed.append(_list_site(raw_files, site, layout, several, ingestion, classes))
        except BadInputError as error:
            raise BadInputError(f"site {site}: {error}" if several else str(error)) from None
    return listed


def _list_site(
    raw_files: RawFiles,
    site: str,
    layout: str,
    several: bool,
    ingestion: IngestionSettings,
    classes: Classes,
) -> ListedSite:
    labels = [*classes, *ingestion.class_names]
    possible = LAYOUTS if layout == AUTO else {layout: LAYOUTS[layout]}
    of_site = go_below(raw_files, site) if several else raw_files
    found = recognise_layout(of_site, possible, labels)
    images, unused = found.layout.read(found.files, labels)
    listed = ListedSite(
        site=site,
        layout=found.layout,
        start=f"{site}/" if several else "",
        folder=f"{found.folder}/" if found.folder else "",
        frames=found.files.originals.keys(),
        images=[],
        quarantine={},
        other_labels=Counter(),
        n_pictures=sum(map(is_picture, found.files)),
    )
    quarantine = dict(unused)
    for image in images:
        label = match_label(image.label, classes.names, ingestion.class_names)
        if label is not None:
            listed.images.append(replace(image, label=label))
            continue
        listed.other_labels[image.label] += 1
        quarantine[image.path] = (
            f"label {image.label!r} is no class ({', '.join(classes)}); ingestion.class_names can "
            "map it to one"
        )
        quarantine |= dict.fromkeys(image.masks, "mask of an image whose label is no class")
    beside = {listed.start + path for path in of_site} - {listed.key(path) for path in found.files}
    reason = f"not within {listed.start}{listed.folder}, where the images lie"
    listed.quarantine.update(dict.fromkeys(beside, reason))
    listed.quarantine.update({listed.key(path): why for path, why in quarantine.items() if why})
    return listed
