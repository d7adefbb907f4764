"""What a package is made of, and how its folder is written."""

import json
import shutil
from collections.abc import Mapping
from importlib.metadata import version
from pathlib import Path
from typing import Any, NamedTuple

import pandas as pd

from busi_pipeline.caching.fingerprints import hash_file
from busi_pipeline.errors import BadInputError
from busi_pipeline.models.novelty import Reference
from busi_pipeline.models.packaged import (
    CARD_FILE,
    CASES_FILE,
    CLASSIFIER_FILE,
    LOCALIZER_FILE,
    PACKAGE_FILE,
    REFERENCE_FILE,
    SCHEMA_VERSION,
    TESTED_FILE,
    TRAINING_FILE,
    Limits,
    PackagedModel,
)

_UNFINISHED = ".unfinished"
# What computes the answer; their versions stand in the package.
COMPUTING = ("numpy", "onnxruntime", "opencv-python-headless", "pillow", "simplejpeg")


class PackageParts(NamedTuple):
    """All that goes into the folder of a package.

    Attributes:
        classifier, localizer: ONNX files; None where there is no localizer.
        description: of the delivered model.
        limits: see models.packaged.
        reference: see models.novelty.
        training_pixels: `pixel_sha256` of what was learned from.
        tested: of images that it did not learn from, or not in the fold that tests them: a row an
            image: `image_id`, `group`, `label`, `pixel_sha256`, `split` (test), `repeat` and, of
            folds, `fold`; what was predicted; `distance` and the qualities.
        cases: `image_id` and `label` of what was learned from, in the order of the reference; None
            where the package may not show them.
        card: Markdown.
        precision: of the classifier.
    """

    classifier: bytes
    localizer: bytes | None
    description: Mapping[str, Any]
    limits: Limits
    reference: Reference
    training_pixels: frozenset[str]
    tested: pd.DataFrame
    card: str
    precision: str
    cases: pd.DataFrame | None = None


def write_package(parts: PackageParts, name: str, folder: Path) -> dict[str, Any]:
    """Write a package beside its folder, then put it in the folder's place.

    Args:
        parts: what goes into it.
        name: of the experiment.
        folder: of the package; what was there is replaced.

    Returns what `package.json` says.
    """
    unfinished = folder.with_name(folder.name + _UNFINISHED)
    shutil.rmtree(unfinished, ignore_errors=True)
    unfinished.mkdir(parents=True)
    contents = {
        CLASSIFIER_FILE: parts.classifier,
        TRAINING_FILE: "\n".join(sorted(parts.training_pixels)).encode(),
        CARD_FILE: parts.card.encode(),
        TESTED_FILE: parts.tested.to_csv(index=False).encode(),
    }
    if parts.localizer is not None:
        contents[LOCALIZER_FILE] = parts.localizer
    if parts.cases is not None:
        contents[CASES_FILE] = parts.cases.to_csv(index=False).encode()
    for file, content in contents.items():
        (unfinished / file).write_bytes(content)
    parts.reference.save(unfinished / REFERENCE_FILE)
    described = {
        **parts.description,
        "schema_version": SCHEMA_VERSION,
        "name": name,
        "precision": parts.precision,
        "limits": parts.limits.as_record(),
        "versions": {package: version(package) for package in ("busi_pipeline", *COMPUTING)},
        "files": {
            file: hash_file(unfinished / file) for file in sorted((*contents, REFERENCE_FILE))
        },
    }
    (unfinished / PACKAGE_FILE).write_text(json.dumps(described, indent=2))
    shutil.rmtree(folder, ignore_errors=True)
    unfinished.rename(folder)
    return described


def read_tested(model: PackagedModel) -> pd.DataFrame:
    """Return what a packaged model was tested on; see PackageParts.

    Raises BadInputError where the file was changed since the model was loaded.
    """
    path = model.folder / TESTED_FILE
    if hash_file(path) != model.description["files"][TESTED_FILE]:
        raise BadInputError(f"{path} was changed: copy the whole folder again.")
    texts = dict.fromkeys(["image_id", "group", "label", "predicted", "pixel_sha256"], str)
    return pd.read_csv(path, dtype=texts, keep_default_na=False)
