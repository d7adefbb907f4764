"""Files of Keras, read without running code that is in them."""

import json
import zipfile
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING

from busi_pipeline.errors import BadInputError

if TYPE_CHECKING:
    import keras

_WRONG_CONTENT = (ValueError, TypeError, LookupError, AttributeError, RuntimeError)


def load_keras_file(path: Path) -> "keras.Model":
    """Return the model of a `.keras` file, not compiled: it is for prediction.

    Raises BadInputError, one line, where this version of Keras cannot read it.
    """
    import keras

    try:
        return keras.saving.load_model(path, compile=False, safe_mode=True)
    except (*_WRONG_CONTENT, zipfile.BadZipFile, OSError) as error:
        if isinstance(error, OSError) and error.errno is not None:
            raise  # the disk's matter
        reason = (str(error).strip() or type(error).__name__).splitlines()[0]
        raise BadInputError(
            f"{path} cannot be read by Keras {version('keras')}{_name_writer(path)} ({reason}): "
            "train the experiment again, or install the version that wrote it."
        ) from error


def _name_writer(path: Path) -> str:
    """Return `; Keras ... wrote it`, where the file says so."""
    try:
        with zipfile.ZipFile(path) as archive:
            return f"; Keras {json.loads(archive.read('metadata.json'))['keras_version']} wrote it"
    except (ValueError, KeyError, TypeError, OSError, zipfile.BadZipFile):
        return ""
