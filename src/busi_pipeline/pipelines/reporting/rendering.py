"""Turn values into HTML and Markdown: figures, tables, intervals, the two templates."""

import base64
import io
import math
import re
from collections.abc import Callable, Mapping
from typing import Any

import pandas as pd
from jinja2 import Environment, PackageLoader, StrictUndefined, select_autoescape
from markupsafe import Markup
from PIL import Image

from busi_pipeline.plotting.style import DEMO_BANNER, SMALL_TEXT
from busi_pipeline.stats.bootstrap import HIGH, LOW
from busi_pipeline.stats.scoring import format_number, format_share

from .commands import write_command
from .wording import describe_augmentation, describe_fitting, describe_input, list_words

INTERVALS = (
    "In brackets: 95 % confidence intervals. If the study were repeated many times with other "
    "patients of the same kind, about 95 of 100 intervals made this way would contain the true "
    "value. They come from resampling whole groups of duplicates. They say nothing about other "
    "hospitals or scanners."
)
INTERVALS_OUTSIDE = (
    "In brackets: 95 % confidence intervals, from resampling patients (or groups of duplicates "
    "where no patients are known)."
)
# Of the table of sites left out, for people.
_LEFT_OUT_COLUMNS = {"title": "experiment"} | {"auc" + end: "AUC" + end for end in ("", LOW, HIGH)}
_INTERVAL_CELL = re.compile(r"<td>([^<]*?) (\([^<]* to [^<]*\))</td>")
# Of the smallest text of a picture, on a screen of any width.
SMALLEST_PIXELS = 10
_PIXELS_PER_INCH, _POINTS_PER_INCH = 96, 72  # of CSS


def render(template: str, of_run: Mapping[str, Any] | None, /, **values: Any) -> str:
    """Return a template of this package, filled in.

    Args:
        template: `report.html.j2` or `model_card.md.j2`.
        of_run: `environment` and `params` of the command, which the commands on the page repeat.
        values: of the template.
    """
    environment = Environment(
        loader=PackageLoader("busi_pipeline.pipelines.reporting"),
        autoescape=select_autoescape(["html.j2"]),
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )

    def command(pipeline: str, *params: str) -> str:
        return write_command(pipeline, of_run, params)

    environment.filters |= {
        "share": format_share,
        "number": format_number,
        "percent": _format_percent,
        "list_words": list_words,
        "describe_input": describe_input,
        "describe_fitting": describe_fitting,
        "describe_augmentation": describe_augmentation,
        "combine": lambda first, more: {**first, **more},
        "stacked": stack_interval,
        "table": show_table,
    }
    environment.globals |= {
        "INTERVALS": INTERVALS,
        "INTERVALS_OUTSIDE": INTERVALS_OUTSIDE,
        "DEMO_BANNER": DEMO_BANNER,
        "LEFT_OUT_COLUMNS": _LEFT_OUT_COLUMNS,
        "command": command,
        "figure": _make_figure(command),
    }
    return environment.get_template(template).render(**values)


def _make_figure(command: Callable[..., str]) -> Callable[..., Markup]:
    def figure(
        content: bytes | str | None, caption: str, finding: str = "", pipeline: str = ""
    ) -> Markup:
        """Return the picture; why there is none; or the command that makes it, if one is named."""
        if isinstance(content, bytes):
            return show_picture(content, caption, finding)
        if content:
            return Markup('<p class="nothing">Nothing to show: {}</p>').format(content)
        if pipeline:
            text = '<p class="missing">{}: not run yet: <code class="command">{}</code></p>'
            return Markup(text).format(caption, command(pipeline))  # noqa: S704 - escapes
        return Markup("")

    return figure


def show_picture(content: bytes, caption: str, finding: str = "") -> Markup:
    """Return a PNG within the page, with its caption; it can be scrolled where it is too wide.

    No screen makes its text smaller than SMALLEST_PIXELS, on paper it is as wide as the page.

    Args:
        content: of the PNG, whose smallest text has `plotting.style.SMALL_TEXT` points.
        caption: what it is.
        finding: what it shows, for those who do not see it.
    """
    with Image.open(io.BytesIO(content), formats=["PNG"]) as image:
        width, height = image.size
        dots = image.info.get("dpi", (_PIXELS_PER_INCH, _PIXELS_PER_INCH))[0]
    inches = width / dots
    least = math.ceil(inches * SMALLEST_PIXELS * _POINTS_PER_INCH / SMALL_TEXT) + 2  # its frame
    return Markup(
        '<figure><div class="scroll" role="region" tabindex="0" aria-label="{label}">'
        '<img alt="{text}" src="data:image/png;base64,{encoded}" width="{width}" height="{height}"'
        ' style="width:min(100%, {shown}px);min-width:{least}px"></div>'
        "<figcaption>{caption}</figcaption></figure>"
    ).format(
        label=f"Picture: {caption}",
        text=f"{caption}. {finding}" if finding else caption,
        encoded=base64.b64encode(content).decode(),
        width=width,
        height=height,
        shown=round(inches * _PIXELS_PER_INCH),
        least=least,
        caption=caption,
    )


def stack_interval(formatted: str) -> Markup:
    """Return a figure with its interval below, so that a wide table fits the page."""
    figure, space, interval = formatted.partition(" (")
    if not space:
        return Markup("{}").format(figure)
    return Markup('{} <span class="interval">({}</span>').format(figure, interval)


def show_table(table: pd.DataFrame, label: str = "") -> Markup:
    """Return a table as HTML: an interval below its figure, shares to three digits, figures from
    100 on to the whole.

    Args:
        table: what to show.
        label: of the part of the page that can be scrolled; none leaves the table alone.
    """
    shown = table.astype(object).where(table.notna(), float("nan"))  # pandas writes None as it is
    for low in [name for name in map(str, table) if name.endswith(LOW)]:
        figure = low.removesuffix(LOW)
        known = table[low].notna()
        shown.loc[known, figure] = table[known].apply(format_number, axis="columns", name=figure)
        shown = shown.drop(columns=[low, figure + HIGH])
    shown.columns = [str(name).replace("_", " ") for name in shown]
    cells = shown.to_html(index=False, border=0, float_format=_format_float, na_rep="–")
    made = _INTERVAL_CELL.sub(r'<td>\1 <span class="interval">\2</span></td>', cells)
    table_html = Markup(made)  # noqa: S704 - pandas has escaped the cells
    return wrap_table(table_html, label) if label else table_html


def wrap_table(table: Markup, label: str) -> Markup:
    """Return a table in a part of the page that scrolls, by the keyboard as well."""
    return Markup('<div class="scroll" role="region" tabindex="0" aria-label="{}">{}</div>').format(
        f"Table: {label}", table
    )


def _format_percent(share: float) -> str:
    """Return `95 %` of 0.95."""
    return f"{100 * share:g} %"


def _format_float(value: float) -> str:
    if 0 < value < 0.0005:
        return "< 0.001"
    return f"{value:.0f}" if abs(value) >= 100 else f"{value:.3f}"
