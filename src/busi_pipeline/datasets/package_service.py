"""A packaged model as MLflow knows it: rows with images in, rows with answers out."""

import base64
import binascii
import json
from typing import Any

import pandas as pd
from mlflow.models import ModelSignature
from mlflow.pyfunc import PythonModel
from mlflow.types import ColSpec, DataType, Schema, TensorSpec

from busi_pipeline.imaging.decoding import UnusableImageError
from busi_pipeline.models.packaged import PackagedModel, load_package

PACKAGE = "package"
"""Name of the artifact, the folder of the package."""
_IMAGE, _BOX = "image", "box"


class PackageService(PythonModel):
    """Answers on images that come as base64 text of their files.

    A row has `image`, and may have `box`, a reader's: "left, top, right, bottom". The answer on a
    row has what models.packaged.Answer has, `probabilities`, `reasons`, `box`, `quality` and
    `similar` as JSON. An image that cannot be used has an `error`, and nothing else.
    """

    def load_context(self, context: Any) -> None:
        """Load the package; raises BadInputError where it is damaged."""
        self._model: PackagedModel = load_package(context.artifacts[PACKAGE])

    def predict(
        self, context: Any, model_input: pd.DataFrame, params: dict[str, Any] | None = None
    ) -> pd.DataFrame:
        """Return one row an image."""
        return pd.DataFrame([self._answer(row) for row in model_input.to_dict("records")])

    def _answer(self, row: dict[Any, Any]) -> dict[str, Any]:
        try:
            content = base64.b64decode(row[_IMAGE], validate=True)
        except (binascii.Error, TypeError, ValueError):
            return {"error": "image must be the base64 text of an image file"}
        try:
            answer = self._model.predict_bytes(content, _read_box(row.get(_BOX)))
        except UnusableImageError as error:
            return {"error": str(error)}
        record = answer.as_record()
        nested = ("probabilities", "reasons", "box", "quality", "similar")
        texts = {name: json.dumps(record[name]) for name in nested}
        return record | texts | {"error": ""}


def _read_box(text: Any) -> list[str] | None:
    if text is None or pd.isna(text) or not str(text).strip():
        return None
    return str(text).split(",")


def make_signature() -> ModelSignature:
    """Return what the service takes and gives, for MLflow."""
    inputs: list[ColSpec | TensorSpec] = [
        ColSpec(DataType.string, _IMAGE),
        ColSpec(DataType.string, _BOX, required=False),
    ]
    return ModelSignature(inputs=Schema(inputs))
