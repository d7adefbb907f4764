"""The sites of a session: where their folders lie, and which of them a run reads."""

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from busi_pipeline.caching.places import find_place
from busi_pipeline.errors import BadSettingError
from busi_pipeline.layouts import LAYOUTS

from .messages import check_settings, suggest
from .schemas import ExternalSettings, IngestionSettings, PredictionSettings, SiteSettings

AUTO = "auto"
TABLE_SUFFIXES = (".csv", ".tsv", ".xlsx")
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_-]*")


def check_sites(
    entries: Any, ingestion: IngestionSettings, external: ExternalSettings
) -> dict[str, SiteSettings]:
    """Return the entries of `sites` as settings.

    Raises BadSettingError, one line, for a wrong entry, for a site or a layout that does not exist,
    and for an external site that is also among the sites that models learn from.
    """
    if not isinstance(entries, Mapping) or not entries:
        raise BadSettingError(
            f"sites must be a mapping with one or more entries; got {entries!r}.", "sites"
        )
    sites = {}
    for name, entry in entries.items():
        _check_name("sites", name)
        sites[name] = check_settings(SiteSettings, entry, f"sites.{name}")
        _check_layout(f"sites.{name}.layout", sites[name].layout)
    _check_layout("ingestion.layout", ingestion.layout)
    _check_layout("external.layout", external.layout)
    if not ingestion.sites:
        raise BadSettingError(
            f"ingestion.sites is empty: name one or more of {', '.join(sites)}.", "ingestion.sites"
        )
    for name in ingestion.sites:
        if name not in sites:
            raise BadSettingError(
                f"ingestion.sites names {name!r}, which is no site.{suggest(name, sites)} "
                f"Sites are {', '.join(sites)}.",
                "ingestion.sites",
            )
        if ingestion.sites.count(name) > 1:
            raise BadSettingError(
                f"ingestion.sites names {name} more than once.", "ingestion.sites"
            )
    _check_external(external, sites, ingestion)
    return sites


def list_training_folders(
    sites: Mapping[str, SiteSettings], ingestion: IngestionSettings
) -> dict[str, str]:
    """Return {site: folder} of the sites that models learn from."""
    return {name: sites[name].folder for name in ingestion.sites}


def resolve_layout(site: SiteSettings | None, ingestion: IngestionSettings) -> str:
    """Return the layout of a site: its own, else the one for all."""
    return (site.layout if site else None) or ingestion.layout


def find_external_site(
    external: ExternalSettings, sites: Mapping[str, SiteSettings]
) -> tuple[str, SiteSettings] | None:
    """Return name and settings of the external site; None where the parameters name none."""
    if external.folder is not None:
        name = external.site or make_name(external.folder)
        return name, SiteSettings(folder=external.folder, layout=external.layout)
    if external.site is None:
        return None
    site = sites[external.site]
    return external.site, site.model_copy(update={"layout": external.layout or site.layout})


def find_prediction_folder(prediction: PredictionSettings) -> str | None:
    """Return where the images to predict lie: the folder, or that of the table; None for none."""
    if prediction.folder is None:
        return None
    path = find_place(prediction.folder)
    return str(path.parent if is_table(prediction.folder) else path)


def is_table(name: str) -> bool:
    """Return whether a name is that of a table and not of a folder."""
    return Path(name).suffix.lower() in TABLE_SUFFIXES


def _check_external(
    external: ExternalSettings, sites: Mapping[str, SiteSettings], ingestion: IngestionSettings
) -> None:
    if external.site is not None:
        _check_name("external.site", external.site)
        if external.folder is None and external.site not in sites:
            raise BadSettingError(
                f"external.site is {external.site!r}, but sites has {', '.join(sites)}: add it "
                "there, or say where it lies with external.folder.",
                "external.site",
            )
        known = sites.get(external.site)
        if known is not None and external.folder not in (None, known.folder):
            raise BadSettingError(
                f"external.site is {external.site!r}, which lies in {known.folder}, but "
                f"external.folder is {external.folder}: give that folder a site of another name, "
                f"external.site={make_name(str(external.folder))}.",
                "external.site",
            )
    found = find_external_site(external, sites)
    if found is not None and found[0] in ingestion.sites:
        raise BadSettingError(
            f"external.site is {found[0]!r}, which is among ingestion.sites: an external site must "
            "be one that no model learns from. Give it another name, or take it out there.",
            "external.site",
        )


def _check_layout(path: str, layout: str | None) -> None:
    allowed = [AUTO, *LAYOUTS]
    if layout is not None and layout not in allowed:
        raise BadSettingError(f"{path} must be one of {', '.join(allowed)}; got {layout!r}.", path)


def _check_name(path: str, name: Any) -> None:
    if not isinstance(name, str) or not _NAME.fullmatch(name):
        raise BadSettingError(
            f"{path}: a site's name may hold letters, digits, _ and -; got {name!r}. It becomes "
            "part of file names.",
            path,
        )


def make_name(folder: str) -> str:
    """Return a name for a folder: `/data/BUS BRA (2023)` is `bus_bra_2023`."""
    words = re.findall(r"[A-Za-z0-9]+", Path(folder).name)
    return "_".join(words).lower() or "external"
