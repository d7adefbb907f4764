"""A page of Markdown, which Kedro-Viz shows as it is read."""

from kedro_datasets._typing import HTMLPreview
from kedro_datasets.text import TextDataset
from markdown_it import MarkdownIt


class MarkdownDataset(TextDataset):
    """`text.TextDataset` of Markdown, with a preview: a model card, a summary."""

    def preview(self) -> HTMLPreview:
        """Return the page as HTML, empty where there is none. HTML within it stays text."""
        if not self._exists():
            return HTMLPreview("")
        render = MarkdownIt("commonmark", {"html": False}).enable("table").render
        # Undecorated, as the previews of kedro-datasets are: looking is no event of a run.
        return HTMLPreview(render(self.load.__wrapped__(self)))
