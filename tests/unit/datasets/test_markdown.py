"""A page of Markdown: kept as text, shown as it is read."""

import inspect
from pathlib import Path

from kedro_mlflow.io.artifacts import MlflowArtifactDataset

from busi_pipeline.datasets.markdown import MarkdownDataset

CARD = "# A model\n\n| class | found |\n| --- | --- |\n| a | 3 |\n\n<script>x</script>\n"


def test_the_preview_is_the_page_as_it_is_read(tmp_path: Path) -> None:
    dataset = MarkdownDataset(filepath=str(tmp_path / "card.md"))
    dataset.save(CARD)
    shown = dataset.preview()
    assert "<h1>A model</h1>" in shown
    assert "<td>3</td>" in shown
    assert "<script>" not in shown
    assert dataset.load() == CARD, "the file stays Markdown"


def test_where_there_is_no_page_the_preview_is_empty(tmp_path: Path) -> None:
    assert MarkdownDataset(filepath=str(tmp_path / "card.md")).preview() == ""


def test_kedro_viz_takes_the_preview_of_a_logged_page_for_html(tmp_path: Path) -> None:
    """TRAP: it goes by the name of the annotation, and through kedro-mlflow's wrapper."""
    own = {"type": MarkdownDataset, "filepath": str(tmp_path / "card.md")}
    logged = MlflowArtifactDataset(dataset=own)
    assert inspect.signature(logged.preview).return_annotation.__name__ == "HTMLPreview"
