"""A model for those who use it: images in, the flag and the probabilities out."""

import json
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from busi_pipeline.caching.fingerprints import hash_file
from busi_pipeline.caching.whole_files import replace_whole, write_whole
from busi_pipeline.errors import BadInputError
from busi_pipeline.imaging.crops import Window
from busi_pipeline.imaging.decoding import UInt8Array, UnusableImageError, decode_image
from busi_pipeline.models.keras_files import load_keras_file
from busi_pipeline.models.reading import Finding, read_pixels
from busi_pipeline.stats.classes import Classes

if TYPE_CHECKING:
    import keras

MODEL_FILE, DESCRIPTION_FILE = "model.keras", "description.json"
LOCALIZER_FILE = "localizer.keras"
# Hashes of the pixels that the model learned from, one a line: so that it is never tested on them.
TRAINING_FILE = "training_pixels.txt"
# Parts of a split whose images a model learned from: fitted to, or chosen by.
LEARNED_FROM = ("train", "validation")
# What a description needs so that the model can be used.
_DESCRIBED = {"image_size", "classes", "positive_classes", "threshold", "model_sha256"}


class DeliveredModel(NamedTuple):
    """A model with all that its use needs.

    Attributes:
        model: uint8 (n, height, width, 3) RGB -> {`probabilities`, `positive_score`, `flagged`},
            see wrappers.add_flag.
        description: `title`, `image_size`, `classes`, `positive_classes`, and what was chosen on
            validation images: `threshold`, `temperature`, `offsets`, `expected_sensitivity`,
            `target_sensitivity`, `threshold_rule`; where it comes from: `sites`, `data_sha256`,
            `split_sha256`, `training_sha256`, `mlflow_run_id`, `parent` (of an adapted model); of
            one that was loaded also `model_sha256`.
        training_pixels: `pixel_sha256` of the training and validation images.
        localizer: finds the lesion, where the model looks at it; see models.localizer.
    """

    model: "keras.Model"
    description: dict[str, Any]
    training_pixels: frozenset[str] = frozenset()
    localizer: "keras.Model | None" = None

    def predict_file(self, path: str | Path, box: Window | None = None) -> Finding:
        """Return the finding on an image file; raises BadInputError where it cannot be read."""
        try:
            pixels = decode_image(Path(path).read_bytes()).pixels
        except (OSError, UnusableImageError) as error:
            raise BadInputError(
                f"{path} cannot be used: {error}. A PNG, JPEG, BMP or TIFF file is needed."
            ) from None
        return self.predict_pixels(pixels, box)

    def predict_pixels(self, pixels: UInt8Array, box: Window | None = None) -> Finding:
        """Return the finding on uint8 (height, width, 3) RGB of any size.

        Args:
            pixels: the image.
            box: of the lesion, by a reader, in pixels of the image; takes the place of the
                localizer's. Who draws it says that there is a lesion: the probabilities of classes
                without one are 0, and the threshold is the one that was chosen for lesions.
        """
        return read_pixels(self, self.description, pixels, box).finding

    def classify(self, shown: UInt8Array) -> Mapping[str, np.ndarray]:
        """See models.reading.Networks."""
        return {name: np.asarray(a) for name, a in self.model.predict_on_batch(shown).items()}

    def draw_maps(self, shown: UInt8Array) -> np.ndarray:
        """See models.reading.Networks."""
        if self.localizer is None:
            raise ValueError("a model without a localizer draws no maps")
        return np.asarray(self.localizer.predict_on_batch(shown))

    @property
    def localizer_size(self) -> int | None:
        """See models.reading.Networks."""
        return None if self.localizer is None else int(self.localizer.input_shape[1])


def build_delivered_model(
    trained_model: "keras.Model",
    operating_point: Mapping[str, Any],
    classes: Classes,
    about: Mapping[str, Any],
    training_pixels: Iterable[str],
    localizer: "keras.Model | None" = None,
) -> DeliveredModel:
    """Put calibration and flag into a trained model, and what they are beside it.

    Args:
        trained_model: uint8 (n, size, size, 3) -> float32 (n, classes) probabilities.
        operating_point: `temperature`, `offsets`, `threshold` and what they were chosen for.
        classes: in the order of the probabilities.
        about: further entries of the description, `title` and `image_size` among them.
        training_pixels, localizer: see DeliveredModel.
    """
    from busi_pipeline.models.wrappers import add_flag, calibrate

    calibrated = calibrate(
        trained_model, operating_point["temperature"], operating_point["offsets"]
    )
    positive = [classes.index(name) for name in classes.positive]
    model = add_flag(calibrated, positive, operating_point["threshold"])
    description = {
        **about,
        "classes": list(classes.names),
        **operating_point,
    }
    return DeliveredModel(model, description, frozenset(training_pixels), localizer)


def save_delivered_model(delivered: DeliveredModel, folder: Path) -> None:
    """Write a model, its description and the hashes of what it learned from into a folder.

    The description gets the SHA-256 of the model file.
    """
    folder.mkdir(parents=True, exist_ok=True)
    with replace_whole(folder / MODEL_FILE) as unfinished:
        delivered.model.save(unfinished)
    description = delivered.description | {"model_sha256": hash_file(folder / MODEL_FILE)}
    if delivered.localizer is not None:
        with replace_whole(folder / LOCALIZER_FILE) as unfinished:
            delivered.localizer.save(unfinished)
        description["localizer_sha256"] = hash_file(folder / LOCALIZER_FILE)
    for name, text in (
        (TRAINING_FILE, "\n".join(sorted(delivered.training_pixels))),
        (DESCRIPTION_FILE, json.dumps(description, indent=2)),
    ):
        with write_whole(folder / name) as file:
            file.write(text.encode())


def load_delivered_model(folder: str | Path) -> DeliveredModel:
    """Return the model that a run delivered, for example `data/06_models/resnet50`.

    Raises BadInputError where there is none, where the description is damaged or of an older
    version, or where model and description are of two runs.
    """
    folder = Path(folder)
    missing = [n for n in (MODEL_FILE, DESCRIPTION_FILE) if not (folder / n).is_file()]
    if missing:
        raise BadInputError(
            f"no delivered model in {folder}: {' and '.join(missing)} missing. "
            "`kedro run --pipeline=train_<experiment>` writes data/06_models/<experiment>."
        )
    description = _read_description(folder / DESCRIPTION_FILE)
    if description["model_sha256"] != hash_file(folder / MODEL_FILE):
        raise BadInputError(
            f"{folder / MODEL_FILE} is not the model that {DESCRIPTION_FILE} beside it describes: "
            "train the experiment again, or copy both files from one run."
        )
    model = load_keras_file(folder / MODEL_FILE)
    localizer = None
    if expected := description.get("localizer_sha256"):
        path = folder / LOCALIZER_FILE
        if not path.is_file() or hash_file(path) != expected:
            raise BadInputError(
                f"{path} is missing, or not the localizer that {DESCRIPTION_FILE} beside it "
                "describes: train the experiment again, or copy all files from one run."
            )
        localizer = load_keras_file(path)
    pixels = folder / TRAINING_FILE
    hashes = pixels.read_text().split() if pixels.is_file() else []
    return DeliveredModel(model, description, frozenset(hashes), localizer)


def _read_description(path: Path) -> dict[str, Any]:
    try:
        description = json.loads(path.read_text())
        missing = sorted(_DESCRIBED - description.keys())
    except (ValueError, AttributeError):
        missing = ["all"]
    if missing:
        raise BadInputError(
            f"{path} is damaged or of an older version ({', '.join(missing)} missing): train the "
            "experiment again."
        )
    return dict(description)
