"""Write the report and the model cards from what the other stages left."""

import base64
import math
from collections.abc import Iterable, Mapping
from typing import Any

import pandas as pd
from jinja2 import Environment, PackageLoader, StrictUndefined, select_autoescape
from markupsafe import Markup

from busi_pipeline.config.experiments import ENSEMBLE, gather_experiments, name_item
from busi_pipeline.config.schemas import (
    DatasetSettings,
    EnsembleSettings,
    EvaluationSettings,
    ExperimentSettings,
    ModelSettings,
)
from busi_pipeline.imaging.network_input import InputDescription, is_plain, list_windows
from busi_pipeline.learning.linear_probe import BOUNDING_BOX, OCCLUDED, VISIBLE
from busi_pipeline.plotting.style import DEMO_BANNER
from busi_pipeline.stats.bootstrap import HIGH, LOW
from busi_pipeline.stats.classes import Classes
from busi_pipeline.stats.paired_tests import INCONCLUSIVE
from busi_pipeline.stats.scoring import format_number, format_share

from .checklists import ITEMS

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
_WEIGHTS = {
    "imagenet": "weights pretrained on everyday photographs (ImageNet)",
    "directory": "pretrained weights from a folder (BUSI_WEIGHTS_DIR)",
    "none": "random weights",
}


def write_report(
    classes: Classes,
    dataset: DatasetSettings,
    evaluation: EvaluationSettings,
    experiments: Mapping[str, ModelSettings],
    ensemble: EnsembleSettings,
    **found: Any,
) -> str:
    """Return the report as one self-contained HTML page.

    Args:
        classes: in the order of the probabilities.
        dataset: its facts and limitations are on the page only where the images are those it
            describes; a synthetic data set puts a banner on the page.
        evaluation: target of the flag, prevalence.
        experiments: by name; those with an item in `found` are on the page, or part of a plain
            `kedro run`.
        ensemble: for its title.
        found: what each stage left, or None where it was not run: `<item>` of all, and those of
            each experiment and the ensemble, see `config.experiments.name_item`.

    What is missing is named, with the command that makes it.
    """
    results = gather_experiments(found)
    common = {name: value for name, value in found.items() if name not in _list_named(results)}
    results = {
        name: items
        for name, items in results.items()
        if name not in experiments or experiments[name].in_default or _was_run(items)
    }
    titles = {name: settings.title for name, settings in experiments.items()}
    titles[ENSEMBLE] = ensemble.title
    cross_validated = {
        name: items["cross_validation_metrics"]
        for name, items in results.items()
        if items.get("cross_validation_metrics")
    }
    best = max(
        cross_validated,
        key=lambda name: cross_validated[name]["test"]["positive"]["auc"],
        default=None,
    )
    pairs = common.pop("cross_validation_comparisons")
    return _render(
        "report.html.j2",
        classes=classes,
        dataset=dataset,
        described=_is_described(dataset, common["data_summary"]),
        positive_share=_measure_positive_share(common["data_summary"], classes),
        evaluation=evaluation,
        weights=describe_weights(_list_weights(results, experiments)),
        results=results,
        titles=titles,
        cross_validated=cross_validated,
        best=best,
        paired=pairs is not None and len(pairs) > 0,
        significant=_select_significant(pairs, titles),
        external=_list_external(results),
        outdated=_list_outdated(results, titles),
        compared=_select_compared(common.pop("comparison_table"), classes),
        bags={
            name: items["metrics"]
            for name, items in results.items()
            if (items.get("metrics") or {}).get("folds", 1) > 1
        },
        carried=_list_carried(results),
        leakage=_name_experiments(common.pop("leakage_table"), ["experiment"], titles),
        items=ITEMS,
        **common,
    )


def describe_training(
    settings: ModelSettings,
    training_report: Mapping[str, Any],
    metrics: Mapping[str, Any],
    operating_point: Mapping[str, Any],
    data_summary: Mapping[str, Any],
    split_summary: Mapping[str, Any],
    evaluation: EvaluationSettings,
    dataset: DatasetSettings,
    classes: Classes,
) -> dict[str, Any]:
    """Return all that the card of a model says of its training, as plain values.

    They lie beside the model and go with it, so that its card can be written anew elsewhere.
    """
    return {
        "settings": settings.model_dump(
            include={
                "title",
                "backbone",
                "image_size",
                "input",
                "training",
                "members",
                "of_folds",
            },
            mode="json",
        ),
        "training": training_report["training"],
        "test": metrics["test"],
        "depends_on": metrics["depends_on"],
        "weights": describe_weights([metrics["depends_on"]["weights"]]),
        "operating_point": operating_point["operating_point"],
        "images": data_summary["images"],
        "split": split_summary["split"],
        "evaluation": evaluation.model_dump(mode="json"),
        "dataset": dataset.model_dump(mode="json"),
        "described": _is_described(dataset, data_summary),
        "classes": list(classes.names),
        "positive_classes": list(classes.positive),
    }


def write_model_card(
    training_card: Mapping[str, Any],
    external_results: Mapping[str, Any],
    newest: Mapping[str, Any] | None = None,
) -> str:
    """Return the card of one model as Markdown (Mitchell et al. 2019, "Model cards for model
    reporting"): what it is, what it is for and not for, how good it is and on what.

    Args:
        training_card: of `describe_training`.
        external_results: {site: metrics of an external validation}; those of an earlier model do
            not count.
        newest: metrics of an external validation that has just been run.
    """
    if newest is not None:
        external_results = {**external_results, newest["external"]["site"]: newest}
    values = dict(training_card)
    classes = Classes(values.pop("classes"), values.pop("positive_classes"))
    return _render(
        "model_card.md.j2",
        classes=classes,
        external=select_current(external_results, training_card),
        **values,
    )


def describe_weights(weights: Iterable[str]) -> str:
    """Return what training starts from, in words: `imagenet`, `directory`, `none`."""
    return " or ".join(_WEIGHTS.get(name, name) for name in dict.fromkeys(weights))


def _is_described(dataset: DatasetSettings, data_summary: Mapping[str, Any] | None) -> bool:
    return data_summary is not None and dataset.describes(data_summary["images"])


def _measure_positive_share(data_summary: Mapping[str, Any] | None, classes: Classes) -> float:
    """Return the share of positive images; nan where it is not known."""
    if data_summary is None:
        return float("nan")
    images = data_summary["images"]
    return float(sum(images[name] for name in classes.positive) / images["all"])


def _list_named(results: Mapping[str, Mapping[str, Any]]) -> set[str]:
    return {name_item(name, item) for name, items in results.items() for item in items}


def _list_external(
    results: Mapping[str, Mapping[str, Any]],
) -> dict[str, dict[str, Mapping[str, Any]]]:
    """Return {site: {experiment: its scores there}} of the models as they are now."""
    of_site: dict[str, dict[str, Mapping[str, Any]]] = {}
    for name, items in results.items():
        for site, scores in select_current(
            items.get("external_results"), items.get("metrics")
        ).items():
            of_site.setdefault(site, {})[name] = scores
    return dict(sorted(of_site.items()))


def _list_outdated(
    results: Mapping[str, Mapping[str, Any]], titles: Mapping[str, str]
) -> dict[str, list[str]]:
    """Return {site: titles of the experiments} whose results there are of an earlier model."""
    of_site: dict[str, list[str]] = {}
    for name, items in results.items():
        found = items.get("external_results") or {}
        for site in found.keys() - select_current(found, items.get("metrics")).keys():
            of_site.setdefault(site, []).append(titles[name])
    return dict(sorted(of_site.items()))


def select_current(
    external_results: Mapping[str, Any] | None, metrics: Mapping[str, Any] | None
) -> dict[str, Mapping[str, Any]]:
    """Return {site: scores} of the model that the hold-out metrics are of; others are outdated.

    Args:
        external_results: {site: metrics of an external validation}, or None.
        metrics: of the hold-out split; `depends_on` says which training they are of.
    """
    training = metrics["depends_on"].get("training_sha256") if metrics else None
    return {
        site: found["external"]
        for site, found in sorted((external_results or {}).items())
        if found["external"]["model"].get("training_sha256") == training
    }


def _was_run(items: Mapping[str, Any]) -> bool:
    # Results at external sites are {} where there are none.
    return any(
        bool(value) if isinstance(value, Mapping) else value is not None for value in items.values()
    )


def _list_carried(results: Mapping[str, Mapping[str, Any]]) -> dict[str, dict[str, Any]]:
    """Return what covering the lesion costs the linear probe, by experiment.

    {experiment: {`visible`, `occluded`, `box`: AUC of positive against other lesions with its
    interval; `share`: of what it knows above chance, the part that goes with the lesion, or None
    where that is no share}}.
    """
    carried = {}
    for name, items in results.items():
        audit = items.get("bias_audit")
        if audit is None:
            continue
        rows = audit.set_index("question")
        names = ["lesion_auc", "lesion_auc" + LOW, "lesion_auc" + HIGH]
        visible, occluded, box = (
            rows.loc[question, names].to_dict() for question in (VISIBLE, OCCLUDED, BOUNDING_BOX)
        )
        known = visible["lesion_auc"] - 0.5
        if math.isnan(known):  # too few images to say
            continue
        lost = visible["lesion_auc"] - occluded["lesion_auc"]
        share = lost / known if 0 <= lost <= known else None
        carried[name] = {"visible": visible, "occluded": occluded, "box": box, "share": share}
    return carried


def _list_weights(
    results: Mapping[str, Mapping[str, Any]], experiments: Mapping[str, ModelSettings]
) -> list[str]:
    """Return what the results on the page were trained from; what is set, where there are none."""
    used = [
        record["depends_on"]["weights"]
        for items in results.values()
        for record in (items.get("metrics"), items.get("cross_validation_metrics"))
        if record and "weights" in record["depends_on"]
    ]
    chosen = [experiments.get(name) for name in results]
    return used or [own.training.weights for own in chosen if isinstance(own, ExperimentSettings)]


def _name_experiments(
    table: pd.DataFrame | None, columns: list[str], titles: Mapping[str, str]
) -> pd.DataFrame | None:
    """Return the table with titles in the place of experiments' names."""
    if table is None:
        return None
    named = {c: table[c].map(lambda name: titles.get(name, name)) for c in columns}
    return table.assign(**named).drop(columns="p_value", errors="ignore")


def _select_significant(
    pairs: pd.DataFrame | None, titles: Mapping[str, str]
) -> pd.DataFrame | None:
    if pairs is None or pairs.empty:
        return None
    named = _name_experiments(pairs[pairs["verdict"] != INCONCLUSIVE], ["first", "second"], titles)
    shown = ["metric", "first", "second"]
    shown += [f"difference{end}" for end in ("", LOW, HIGH)]
    return None if named is None else named[[*shown, "p_corrected", "verdict"]]


def _select_compared(table: pd.DataFrame | None, classes: Classes) -> pd.DataFrame | None:
    """Return the columns of the comparison that the page shows, under names for people."""
    if table is None:
        return None
    positive = classes.positive_name
    titles = {
        "accuracy": "accuracy",
        "positive_sensitivity": f"{positive} classified as such",
        "positive_auc": f"AUC, {positive}",
    }
    names = {old + end: new + end for old, new in titles.items() for end in ("", LOW, HIGH)}
    shown = table[["model", "source", *names, "seconds", "split_method"]]
    return shown.rename(columns=names | {"seconds": "training (s)", "split_method": "split"})


def _render(template: str, **values: Any) -> str:
    environment = Environment(
        loader=PackageLoader("busi_pipeline.pipelines.reporting"),
        autoescape=select_autoescape(["html.j2"]),
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters |= {
        "share": format_share,
        "number": format_number,
        "percent": _format_percent,
        "list_words": _list_words,
        "describe_input": describe_input,
        "picture": show_picture,
        "stacked": stack_interval,
        "table": show_table,
    }
    environment.globals |= {
        "INTERVALS": INTERVALS,
        "INTERVALS_OUTSIDE": INTERVALS_OUTSIDE,
        "DEMO_BANNER": DEMO_BANNER,
    }
    return environment.get_template(template).render(**values)


def _format_percent(share: float) -> str:
    """Return `95 %` of 0.95."""
    return f"{100 * share:g} %"


def _list_words(names: Iterable[str], word: str = "and") -> str:
    """Return `a, b and c`."""
    *first, last = names
    return f"{', '.join(first)} {word} {last}" if first else last


def describe_input(settings: Mapping[str, Any]) -> str:
    """Return what a model takes, in words.

    Args:
        settings: `image_size` and `input` of an experiment, as plain values.
    """
    size, shape = settings["image_size"], InputDescription(**settings["input"])
    windows = list_windows(shape)
    many = f"{len(windows)}, " if len(windows) > 1 else ""
    array = f"uint8 RGB, (n, {many}{size}, {size}, 3)"
    if is_plain(shape):
        return f"{array}, stretched to this size (bilinear)"
    margins = [f"{100 * margin:g}" for margin in windows if margin is not None]
    seen = ["the whole image"] if None in windows else []
    if margins:
        seen.insert(0, f"the lesion with {_list_words(margins)} % of its longer side around it")
    changes = {
        "at its true shape": shape.keep_aspect,
        "stretched": not shape.keep_aspect,
        "without colour": shape.grey,
        "grey values stretched": shape.stretch_intensity,
        "burned-in text smoothed away": shape.remove_text,
        "empty borders cut off": shape.remove_borders,
    }
    how = ", ".join(change for change, is_made in changes.items() if is_made)
    found = "; the localizer beside the model finds the lesion" if margins else ""
    return f"{array}: {_list_words(seen)}, {how}{found}"


def show_picture(content: bytes, text: str) -> Markup:
    """Return an image with the PNG inside."""
    encoded = base64.b64encode(content).decode()
    return Markup('<img alt="{}" src="data:image/png;base64,{}">').format(text, encoded)


def stack_interval(formatted: str) -> Markup:
    """Return a figure with its interval below, so that a wide table fits the page."""
    figure, space, interval = formatted.partition(" (")
    if not space:
        return Markup("{}").format(figure)
    return Markup('{} <span class="interval">({}</span>').format(figure, interval)


def show_table(table: pd.DataFrame) -> Markup:
    """Return a table as HTML: an interval in the cell of its figure, shares to three digits,
    figures from 100 on to the whole."""
    shown = table.astype(object).where(table.notna(), float("nan"))  # pandas writes None as it is
    for low in [name for name in map(str, table) if name.endswith(LOW)]:
        figure = low.removesuffix(LOW)
        known = table[low].notna()
        shown.loc[known, figure] = table[known].apply(format_number, axis="columns", name=figure)
        shown = shown.drop(columns=[low, figure + HIGH])
    shown.columns = [str(name).replace("_", " ") for name in shown]
    return Markup(  # pandas escapes the cells
        shown.to_html(index=False, border=0, float_format=_format_float, na_rep="–")
    )


def _format_float(value: float) -> str:
    if 0 < value < 0.0005:
        return "< 0.001"
    return f"{value:.0f}" if abs(value) >= 100 else f"{value:.3f}"
