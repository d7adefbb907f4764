"""What a server elsewhere does not get of a run: pictures of patients, and names.

File names, patients and groups become pseudonyms by a keyed hash, the same for a name wherever it
stands in the runs of a project. The key stays here.
"""

import hashlib
import hmac
import re
import secrets
import shutil
from collections.abc import Mapping
from pathlib import Path

import pandas as pd

from busi_pipeline.caching.whole_files import replace_whole

# Pictures of curves, counts and shares, and of no patient. Any other one stays here.
CURVES = frozenset(
    {
        "bias_audit.png",
        "calibration.png",
        "comparison.png",
        "confusion_matrix.png",
        "cross_validation_comparisons.png",
        "curve.png",
        "decision_curve.png",
        "evidence.png",
        "leakage.png",
        "learning_curves.png",
        "leave_one_site_out.png",
        "pairwise_comparisons.png",
        "roc_pr_curves.png",
        "site_curves.png",
        "sites.png",
        "subgroups.png",
    }
)
# Endings of files that show pictures.
_PICTURES = (".png", ".jpg", ".jpeg", ".bmp", ".tif", ".tiff", ".svg", ".html", ".gif", ".webp")
# Columns of tables that name files, patients, or groups of them.
_NAMES = frozenset(
    {
        *("image_id", "path", "image", "file", "image_a", "image_b", "mask_paths"),
        *("patient", "group", "cv_group", "byte_duplicate_of", "note", "reason"),
    }
)
_TABLE = ".csv"
# Of the packed model: the images it was tested on, which its own check-sums cover.
_TESTED = "tested.csv"
# Tags that name who ran it, or a place on this machine.
_TAGS = ("mlflow.user", "mlflow.source.name")
_PLACE = re.compile(r"^(/|~|[A-Za-z]:[\\/]|\\\\)")
_KEY_BYTES = 32


def read_key(path: Path) -> bytes:
    """Return the secret of a project's pseudonyms; it is made where there is none."""
    if not path.is_file():
        with replace_whole(path) as unfinished:
            unfinished.touch(mode=0o600)
            unfinished.write_bytes(secrets.token_bytes(_KEY_BYTES))
    return path.read_bytes()


def hide_name(name: object, key: bytes) -> str:
    """Return the pseudonym of a name; an empty one stays empty."""
    text = str(name)
    if not text:
        return ""
    return hmac.new(key, text.encode(), hashlib.sha256).hexdigest()[:16]


def copy_artifacts(source: Path, target: Path, key: bytes) -> list[str]:
    """Copy what may leave of a folder; return the names of the files that stay.

    Args:
        source: a run's artifacts.
        target: a new folder.
        key: of the pseudonyms in tables.
    """
    withheld = []
    for path in sorted(source.rglob("*")):
        name = path.relative_to(source)
        if not path.is_file():
            continue
        if path.suffix.lower() in _PICTURES and path.name not in CURVES:
            withheld.append(name.as_posix())
            continue
        (target / name).parent.mkdir(parents=True, exist_ok=True)
        if path.suffix == _TABLE:
            _copy_table(path, target / name, key)
        else:
            shutil.copyfile(path, target / name)
    return withheld


def _copy_table(source: Path, target: Path, key: bytes) -> None:
    try:
        table = pd.read_csv(source, dtype=str, keep_default_na=False)
    except pd.errors.EmptyDataError:
        shutil.copyfile(source, target)
        return
    for column in _NAMES & set(table.columns):
        table[column] = [hide_name(name, key) for name in table[column]]
    table.to_csv(target, index=False)


def may_leave(model: Path) -> bool:
    """Return whether a logged model names no image: a packed one does, and its files are signed."""
    return not any(model.rglob(_TESTED))


def hide_tags(tags: Mapping[str, str]) -> dict[str, str]:
    """Return tags without the user and without places on this machine."""
    return {
        key: value for key, value in tags.items() if key not in _TAGS and not _PLACE.match(value)
    }


def hide_places(params: Mapping[str, str]) -> dict[str, str]:
    """Return parameters; those that are a place on this machine say so."""
    return {key: "withheld" if _PLACE.match(value) else value for key, value in params.items()}
