"""The messages that the page has, wherever they stand.

    python -m tests.unit.serving.messages

adds new ones to each catalogue, with an empty translation, and takes out those that are gone.
"""

import io
from pathlib import Path

from babel.messages import Catalog
from babel.messages.extract import extract_from_dir
from babel.messages.pofile import read_po, write_po

import busi_pipeline.serving.page
from busi_pipeline.models.packaged import REASONS

PAGE = Path(busi_pipeline.serving.page.__file__).parent
CATALOGUES = sorted((PAGE / "locale").glob("*.po"))
_METHODS = [("**.py", "python"), ("**.j2", "jinja2.ext:babel_extract")]
_KEYWORDS = {"translate": None, "_": None, "gettext": None, "RequestError": (2,)}
# Classes of the data that the project is made for.
_CLASSES = ("benign", "malignant", "normal")


def list_messages() -> Catalog:
    """Return all messages, each with where it stands."""
    catalogue = Catalog()
    for name, _, message, comments, _ in extract_from_dir(
        PAGE, _METHODS, keywords=_KEYWORDS, options_map={"**.j2": {"newstyle_gettext": "true"}}
    ):
        catalogue.add(message, locations=[(name, 0)], auto_comments=comments)
    for text in (*REASONS.values(), *_CLASSES):
        catalogue.add(text)
    return catalogue


def read_catalogue(path: Path) -> Catalog:
    """Return a catalogue of translations."""
    with path.open("rb") as file:
        return read_po(file, locale=path.stem)


def _update() -> None:
    for path in CATALOGUES:
        catalogue = read_catalogue(path)
        catalogue.update(list_messages(), no_fuzzy_matching=True)
        catalogue.obsolete.clear()
        header = path.read_text("utf-8").split("\n\n")[0]
        body = io.BytesIO()
        write_po(body, catalogue, no_location=True, omit_header=True, sort_output=True)
        path.write_text(f"{header}\n\n{body.getvalue().decode().strip()}\n", "utf-8")


if __name__ == "__main__":
    _update()
