"""`python -m busi_pipeline predict scan.png`: answers without Kedro, TensorFlow or MLflow."""

import json
import sys
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from busi_pipeline.errors import BadInputError

if TYPE_CHECKING:
    from busi_pipeline.models.packaged import Answer

_MODELS = Path("data/06_models")
_NO_DIAGNOSIS = "This is no diagnosis. The answer is for a second look by a reader."


@click.command(name="predict")
@click.argument("files", nargs=-1, required=True, type=click.Path(path_type=Path))
@click.option(
    "--model",
    help="Name of an experiment, champion, challenger or previous, a version, or the folder of a "
    "package; by default the champion, or the only one in data/06_models.",
)
@click.option("--box", help="Of the lesion, by a reader: left,top,right,bottom in pixels.")
@click.option(
    "--overlay",
    type=click.Path(path_type=Path, dir_okay=False),
    help="A picture to write: the image, the box, and in red and blue what speaks for and against.",
)
@click.option("--json", "as_json", is_flag=True, help="One JSON object a line, a file each.")
@click.option("--models", type=click.Path(path_type=Path), default=_MODELS, show_default=True)
def predict(
    files: Sequence[Path],
    model: str | None,
    box: str | None,
    overlay: Path | None,
    as_json: bool,
    models: Path,
) -> None:
    """Say what a packaged model says of images: PNG, JPEG, BMP, TIFF or DICOM files.

    The exit status is 1 where one of the files cannot be used.
    """
    # Help must not wait for these.
    from busi_pipeline.imaging.decoding import UnusableImageError
    from busi_pipeline.models.model_store import find_package
    from busi_pipeline.models.packaged import load_package

    drawn = None if box is None else box.split(",")
    for option, given in (("--box", drawn), ("--overlay", overlay)):
        if given is not None and len(files) > 1:
            raise BadInputError(f"{option} is of one image: name one file.")
    packaged = load_package(find_package(models, model))
    unusable = 0
    for file in files:
        try:
            answer = packaged.predict_file(file, drawn)
        except UnusableImageError as error:
            unusable += 1
            if as_json:
                click.echo(json.dumps({"file": str(file), "error": str(error)}))
            else:
                click.echo(f"{file}: cannot be used: {error}", err=True)
            continue
        if overlay is not None:
            _write_overlay(file, answer, overlay)
        if as_json:
            click.echo(json.dumps({"file": str(file), "error": None, **answer.as_record()}))
        else:
            click.echo("\n".join(_describe(file, answer, packaged.description)))
    if not as_json and unusable < len(files):
        click.echo(_NO_DIAGNOSIS)
    sys.exit(1 if unusable else 0)


def _write_overlay(file: Path, answer: "Answer", path: Path) -> None:
    from PIL import Image

    from busi_pipeline.imaging.overlays import draw_finding
    from busi_pipeline.models.packaged import READER, decode_any

    drawn = draw_finding(
        decode_any(file.read_bytes()),  # whole: a cover could hide a lesion
        answer.box,
        answer.box_source == READER,
        answer.attribution,
    )
    try:
        Image.fromarray(drawn).save(path)
    except (OSError, ValueError) as error:
        reason = error.strerror if isinstance(error, OSError) and error.strerror else error
        raise BadInputError(
            f"--overlay {path} cannot be written: {reason}. Name a PNG, JPEG or TIFF file in a "
            "folder that exists."
        ) from None


def _describe(file: Path, answer: "Answer", description: Mapping[str, Any]) -> Iterator[str]:
    """Yield the lines that a person reads."""
    from busi_pipeline.models.packaged import REASONS

    positive = " or ".join(description["positive_classes"])
    yield f"{file}: {'FLAGGED for review' if answer.flagged else 'not flagged'}"
    yield (
        f"  {positive}: {answer.positive_score:.4f}; flagged from {answer.threshold:.4f} on, which "
        f"finds {100 * answer.expected_sensitivity:.0f} % of such images at the model's own site"
    )
    shares = (f"{name} {share:.4f}" for name, share in answer.probabilities.items())
    yield f"  probabilities: {', '.join(shares)}"
    if answer.box is not None:
        edges = ", ".join(f"{edge:.0f}" for edge in answer.box)
        sure = "" if answer.confidence is None else f", confidence {answer.confidence:.2f}"
        yield f"  lesion: {edges} (left, top, right, bottom), by the {answer.box_source}{sure}"
    if answer.similar:
        cases = (f"{own.image_id} ({own.label}, {own.similarity:.2f})" for own in answer.similar)
        yield f"  most similar images learned from: {'; '.join(cases)}"
    for reason in answer.reasons:
        yield f"  REFER to a reader: {REASONS[reason]}"
    yield f"  model: {description['title']}, {answer.model} {answer.model_version}"
