"""What is known of an external image, as words: for subgroups, and for who fails."""

from collections.abc import Callable, Iterator
from itertools import pairwise

import numpy as np
import pandas as pd

# Millimetres: the steps of a tumour's T stage (T1b and below, T1c, T2 and above).
_SIZES_MM = (10, 20)
_AGES = (40, 50, 60, 70)
_THIRDS = ("small third", "middle third", "large third")
_QUARTER = 0.25
_NONE = "none of these"


def read_birads(values: pd.Series) -> pd.Series:
    """Return the BI-RADS category: 4.0 of `4`, `4A`, `BI-RADS 4c`; nan where it is not known."""
    return pd.to_numeric(values.astype(str).str.extract(r"([0-6])")[0], errors="coerce")


def list_variables(manifest: pd.DataFrame, properties: pd.DataFrame) -> dict[str, pd.Series]:
    """Return {variable: text of each image, "" where it is not known}, to form subgroups by.

    Args:
        manifest: device, birads, view, overlay, density, histology, age, height, width.
        properties: of each image, in the same order, see properties.measure_properties.
    """
    age = pd.to_numeric(manifest["age"], errors="coerce")
    return {
        "device": manifest["device"],
        "BI-RADS": read_birads(manifest["birads"]).map(lambda v: "" if np.isnan(v) else f"{v:.0f}"),
        "lesion size": _describe_sizes(properties),
        "age": _cut(age, _AGES, "years"),
        "density": manifest["density"],
        "histology": manifest["histology"],
        "view": manifest["view"],
        "overlay": manifest["overlay"],
        "burned-in annotations": _say(properties["annotated"], "with", "without"),
        "colour": _say(properties["colour"], "with", "without"),
    }


def list_failures(
    predictions: pd.DataFrame,
    manifest: pd.DataFrame,
    properties: pd.DataFrame,
    found: pd.Series | None = None,
) -> pd.DataFrame:
    """Return how often what is seen in failures is also seen in images that were handled right.

    Failures are positive images that are not flagged (`missed`) and others that are
    (`false alarm`). One row a failure and characteristic: `failure`, `characteristic`, `failures`
    (images with it), `share_of_failures`, `share_of_others` (of those of the same label that were
    handled right) and `ratio` of the shares. An image may have several characteristics.

    Args:
        predictions: of the site.
        manifest, properties: of its images, in the same order.
        found: whether the localizer found a lesion, by `image_id`; None of a model without one.
    """
    seen = {
        name: np.asarray(mask, dtype=bool)
        for name, mask in _characterise(manifest, properties, found)
    }
    for name in predictions["predicted"].unique():
        seen[f"likeliest class: {name}"] = (predictions["predicted"] == name).to_numpy()
    traits = [mask for name, mask in seen.items() if not name.startswith("likeliest")]
    seen[_NONE] = ~np.any(traits, axis=0) if traits else np.ones(len(predictions), bool)
    positive = predictions["is_positive"].to_numpy(dtype=bool)
    flagged = predictions["flagged"].to_numpy(dtype=bool)
    rows = []
    for failure, of_label, failed in (
        ("missed", positive, positive & ~flagged),
        ("false alarm", ~positive, ~positive & flagged),
    ):
        others = of_label & ~failed
        for name, mask in seen.items():
            if not (mask & of_label).any():
                continue
            shares = [mask[rows].mean() if rows.any() else np.nan for rows in (failed, others)]
            rows.append(
                {
                    "failure": failure,
                    "characteristic": name,
                    "failures": int((mask & failed).sum()),
                    "share_of_failures": shares[0],
                    "share_of_others": shares[1],
                    "ratio": shares[0] / shares[1] if shares[1] else np.nan,
                }
            )
    columns = [
        "failure",
        "characteristic",
        "failures",
        "share_of_failures",
        "share_of_others",
        "ratio",
    ]
    return pd.DataFrame(rows, columns=columns)


def _characterise(
    manifest: pd.DataFrame, properties: pd.DataFrame, found: pd.Series | None
) -> Iterator[tuple[str, np.ndarray | pd.Series]]:
    """Yield (characteristic, bool of each image)."""
    size = properties["lesion_share"]
    yield "smallest lesions (a quarter)", size <= size.quantile(_QUARTER)
    yield "largest lesions (a quarter)", size >= size.quantile(1 - _QUARTER)
    yield "lesion cut by the border", properties["lesion_at_border"] == 1
    yield "no lesion marked", size.isna()
    yield "burned-in annotations", properties["annotated"] == 1
    is_doppler = manifest["overlay"].str.contains("doppler", case=False)
    yield "Doppler", is_doppler
    yield "colour, not said to be Doppler", (properties["colour"] == 1) & ~is_doppler
    if found is not None:
        yield "no lesion found", ~manifest["image_id"].map(found).astype(bool)
    yield "axilla", manifest["view"].str.contains("axill", case=False)
    yield "BI-RADS 2 or 3", read_birads(manifest["birads"]).isin([2, 3])
    yield "BI-RADS 4 or 5", read_birads(manifest["birads"]).isin([4, 5])
    pixels = manifest["height"] * manifest["width"]
    yield "smallest pictures (a quarter)", _below(pixels, pd.Series.__lt__)
    yield "darkest pictures (a quarter)", _below(properties["brightness"], pd.Series.__le__)
    yield "least contrast (a quarter)", _below(properties["contrast"], pd.Series.__le__)


def _below(values: pd.Series, compare: Callable[[pd.Series, float], pd.Series]) -> pd.Series:
    return compare(values, float(values.quantile(_QUARTER)))


def _describe_sizes(properties: pd.DataFrame) -> pd.Series:
    """Return the size of the lesion: in millimetres if they are known, else in thirds."""
    if properties["lesion_mm"].notna().any():
        return _cut(properties["lesion_mm"], _SIZES_MM, "mm")
    share = properties["lesion_share"]
    if share.notna().sum() < len(_THIRDS) or share.nunique() < len(_THIRDS):
        return pd.Series("", index=properties.index)
    edges = share.quantile([1 / 3, 2 / 3]).to_numpy()
    third = np.searchsorted(edges, share.to_numpy(), side="left")
    names = np.array(_THIRDS)[np.minimum(third, 2)]
    return pd.Series(np.where(share.notna(), names, ""), index=properties.index)


def _cut(values: pd.Series, edges: tuple[int, ...], unit: str) -> pd.Series:
    """Return the band of each value, such as `40 to 49 years`; "" where it is not known."""
    names = [f"below {edges[0]} {unit}"]
    names += [f"{low} to below {high} {unit}" for low, high in pairwise(edges)]
    names.append(f"{edges[-1]} {unit} and above")
    band = np.searchsorted(np.array(edges), values.to_numpy(dtype=float), side="right")
    return pd.Series(
        np.where(values.notna(), np.array(names)[np.minimum(band, len(edges))], ""),
        index=values.index,
    )


def _say(values: pd.Series, yes: str, no: str) -> pd.Series:
    return values.map({1: yes, 0: no}).fillna("")
