"""Write the report and the model cards from what the other stages left."""

import base64
from collections.abc import Mapping
from typing import Any

import pandas as pd
from jinja2 import Environment, PackageLoader, StrictUndefined, select_autoescape
from markupsafe import Markup

from busi_pipeline.experiments import gather_rows
from busi_pipeline.intervals import HIGH, LOW
from busi_pipeline.judging import tell_number, tell_share

from .checklists import ITEMS


def write_report(**found: Any) -> str:
    """Return the report as one self-contained HTML page.

    Args:
        found: what each stage left, or None where it was not run: `<item>` of all, and those of
            each row (experiments and the ensemble), see `experiments.name_item`.

    What is missing is named, with the command that makes it.
    """
    rows = gather_rows(found)
    ranked = {
        row: items["cv_metrics"]["cross_validation"]
        for row, items in rows.items()
        if items.get("cv_metrics")
    }
    best = max(ranked, key=lambda row: ranked[row]["test"]["malignant"]["auc"], default=None)
    return _render("report.html.j2", rows=rows, best=best, items=ITEMS, **found)


def write_model_card(
    settings: Mapping[str, Any],
    training_report: Mapping[str, Any],
    metrics: Mapping[str, Any],
    decision: Mapping[str, Any],
    data_summary: Mapping[str, Any],
    split_summary: Mapping[str, Any],
    judging: Mapping[str, Any],
    classes: list[str],
) -> str:
    """Return the card of one model as Markdown (Mitchell et al. 2019, "Model cards for model
    reporting"): what it is, what it is for and not for, how good it is and on what."""
    return _render(
        "model_card.md.j2",
        settings=settings,
        training=training_report["training"],
        test=metrics["test"],
        depends_on=metrics["depends_on"],
        decision=decision["decision"],
        images=data_summary["images"],
        split=split_summary["split"],
        judging=judging,
        classes=classes,
    )


def _render(template: str, **values: Any) -> str:
    environment = Environment(
        loader=PackageLoader("busi_pipeline.pipelines.report"),
        autoescape=select_autoescape(["html.j2"]),
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters |= {
        "share": tell_share,
        "number": tell_number,
        "picture": show_picture,
        "stacked": stack_interval,
        "table": show_table,
    }
    return environment.get_template(template).render(**values)


def show_picture(content: bytes, text: str) -> Markup:
    """Return an image with the PNG inside."""
    encoded = base64.b64encode(content).decode()
    return Markup('<img alt="{}" src="data:image/png;base64,{}">').format(text, encoded)


def stack_interval(told: str) -> Markup:
    """Return a figure with its interval below, so that a wide table fits the page."""
    figure, space, interval = told.partition(" (")
    if not space:
        return Markup("{}").format(figure)
    return Markup('{} <span class="interval">({}</span>').format(figure, interval)


def show_table(table: pd.DataFrame) -> Markup:
    """Return a table as HTML: an interval in the cell of its figure, shares to three digits,
    figures from 100 on to the whole."""
    shown = table.astype(object).where(table.notna(), float("nan"))  # pandas writes None as it is
    for low in [name for name in map(str, table) if name.endswith(LOW)]:
        figure = low.removesuffix(LOW)
        told = table[low].notna()
        shown.loc[told, figure] = table[told].apply(tell_number, axis="columns", name=figure)
        shown = shown.drop(columns=[low, figure + HIGH])
    shown.columns = [str(name).replace("_", " ") for name in shown]
    return Markup(  # pandas escapes the cells
        shown.to_html(index=False, border=0, float_format=_write_number, na_rep="–")
    )


def _write_number(value: float) -> str:
    return f"{value:.0f}" if abs(value) >= 100 else f"{value:.3f}"
