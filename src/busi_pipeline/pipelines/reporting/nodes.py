"""Write the report and the model cards from what the other stages left."""

import math
from collections.abc import Mapping
from typing import Any

import pandas as pd

from busi_pipeline.config.experiments import ENSEMBLE, gather_experiments, name_item
from busi_pipeline.config.schemas import (
    DatasetSettings,
    EnsembleSettings,
    EvaluationSettings,
    ExperimentSettings,
    ModelSettings,
)
from busi_pipeline.errors import BadInputError
from busi_pipeline.learning.linear_probe import BOUNDING_BOX, OCCLUDED, VISIBLE
from busi_pipeline.stats.bootstrap import HIGH, LOW
from busi_pipeline.stats.classes import Classes
from busi_pipeline.stats.paired_tests import INCONCLUSIVE
from busi_pipeline.stats.scoring import ranks_like_chance, say_chance

from . import evidence, findings
from .checklists import ITEMS
from .commands import list_commands
from .evidence import gather_evidence, select_leading
from .rendering import render
from .wording import describe_fitting, describe_plan, describe_weights

# Of what training depends on, in the order of the page: {key: its name there}.
_HASHES = {
    "model_sha256": "model file",
    "training_sha256": "training",
    "split_sha256": "split",
    "weights_sha256": "initial weights",
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

    The page shows the best evidence of each experiment that there is (see `.evidence`) and says
    which. What is missing is named, with the command that makes it.
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
    gathered = gather_evidence(results)
    shown = select_leading(gathered)
    best = max(shown, key=lambda name: shown[name].auc, default=None)
    run = common.pop("run_provenance") or {}
    commands = list_commands(results, common, run)
    pairs = common.pop("cross_validation_comparisons")
    table = common.pop("comparison_table")
    leakage = common.pop("leakage_table")
    data_tags = common.pop("data_tags") or {}
    # The plot of lesion boxes is of test images.
    boxes_drawn = ((common["localizer_metrics"] or {}).get("localizer") or {}).get("test")
    return render(
        "report.html.j2",
        run,
        run=run,
        commands=commands,
        data_sha256=data_tags.get("data_sha256"),
        models=[_describe_model(titles[name], items) for name, items in results.items()],
        classes=classes,
        dataset=dataset,
        described=_is_described(dataset, common["data_summary"]),
        positive_share=_measure_positive_share(common["data_summary"], classes),
        evaluation=evaluation,
        weights=describe_weights(_list_weights(results, experiments)),
        trainings=_list_trainings(results, experiments),
        results=results,
        titles=titles,
        shown=shown,
        others={name: own for name, own in gathered.items() if name not in shown},
        best=best,
        chance={
            name: say_chance(own.test, classes)
            for name, own in shown.items()
            if ranks_like_chance(own.test)
        },
        kinds=evidence,
        say=findings,
        paired=pairs is not None and len(pairs) > 0,
        pairs=pairs,
        significant=_select_significant(pairs, titles),
        external=_list_external(results),
        outdated=_list_outdated(results, titles),
        table=table,
        compared=_select_compared(table, classes),
        notes=_list_notes(table),
        bags={
            name: items["metrics"]
            for name, items in results.items()
            if (items.get("metrics") or {}).get("folds", 1) > 1
        },
        carried=_list_carried(results),
        boxes_drawn=boxes_drawn,
        located=_list_located(common, results),
        left_out=_select_left_out(common.pop("leave_one_site_out_table"), results),
        leakage=_name_experiments(leakage, ["experiment"], titles),
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
    run_provenance: Mapping[str, Any],
    evaluation: EvaluationSettings,
    dataset: DatasetSettings,
    classes: Classes,
) -> dict[str, Any]:
    """Return all that the card of a model says of its training, as plain values.

    They lie beside the model and go with it, so that its card can be written anew elsewhere. Of the
    run they hold environment and parameters, which are the same whenever it is repeated.
    """
    return {
        "settings": settings.model_dump(
            include={
                "title",
                "backbone",
                "image_size",
                "input",
                "augmentation",
                "training",
                "members",
                "of_folds",
            },
            mode="json",
        ),
        "training": training_report["training"],
        "test": metrics["test"],
        "depends_on": metrics["depends_on"],
        "weights": describe_weights(metrics["depends_on"]["weights"].split(" and ")),
        "operating_point": operating_point["operating_point"],
        "images": data_summary["images"],
        "split": split_summary["split"],
        "run": {name: run_provenance[name] for name in ("environment", "params")},
        "evaluation": evaluation.model_dump(mode="json"),
        "dataset": dataset.model_dump(mode="json"),
        "described": _is_described(dataset, data_summary),
        "classes": list(classes.names),
        "positive_classes": list(classes.positive),
    }


def write_model_card(
    training_card: Mapping[str, Any] | None,
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

    Raises BadInputError where there is no training card.
    """
    if training_card is None:
        raise BadInputError(
            "training_card.json is not there, from which the card of the model is written: train "
            "the experiment again (`kedro run --pipeline=train_<experiment>`)."
        )
    if newest is not None:
        external_results = {**external_results, newest["external"]["site"]: newest}
    values = dict(training_card)
    classes = Classes(values.pop("classes"), values.pop("positive_classes"))
    return render(
        "model_card.md.j2",
        values.pop("run", None),
        card=training_card,
        classes=classes,
        external=select_current(external_results, training_card),
        **values,
    )


def _describe_model(title: str, items: Mapping[str, Any]) -> dict[str, Any]:
    """Return {`title`, `threshold`, `hashes`: {what: SHA-256}, `made_on`} of an experiment."""
    record = items.get("metrics") or items.get("cross_validation_metrics") or {}
    card, depends_on = items.get("training_card") or {}, record.get("depends_on", {})
    about = items.get("model_description") or {}
    if about.get("training_sha256") != depends_on.get("training_sha256"):
        about = {}  # of another training than the figures
    known = {**depends_on, **about}
    chosen = card.get("operating_point")
    if chosen is None and not items.get("metrics"):
        chosen = (items.get("operating_point") or {}).get("operating_point")
    made_on = [depends_on[name] for name in ("device", "precision") if depends_on.get(name)]
    return {
        "title": title,
        "threshold": chosen,
        "hashes": {
            name: known[key] for key, name in _HASHES.items() if known.get(key, "none") != "none"
        },
        "made_on": ", ".join(made_on),
    }


def _list_trainings(
    results: Mapping[str, Mapping[str, Any]], experiments: Mapping[str, ModelSettings]
) -> dict[str, dict[str, Any]]:
    """Return {experiment: its `card` where it was delivered, and `how` it was or is trained}."""
    trainings = {}
    for name, items in results.items():
        if name not in experiments:
            continue
        card = items.get("training_card")
        how = describe_fitting(card) if card else f"as set: {describe_plan(experiments[name])}"
        settings = experiments[name].model_dump(include={"image_size", "input"}, mode="json")
        trainings[name] = {
            "card": card,
            "how": how,
            "settings": (card or {}).get("settings", settings),
        }
    return trainings


def _list_located(
    common: dict[str, Any], results: Mapping[str, Mapping[str, Any]]
) -> dict[str, Mapping[str, Any]]:
    """Return {where: scores of the localizer}; takes the records out of `common`."""
    located: dict[str, Mapping[str, Any]] = {}
    for item, where in (
        ("cross_validation_localizer_metrics", "out of fold"),
        ("localizer_metrics", "hold-out split"),
    ):
        record = common.pop(item)
        for part, scores in (record or {}).get("localizer", {}).items():
            named = where if len(record["localizer"]) == 1 else f"{where}, {part} images"
            located[named] = scores
    for items in results.values():
        for site, record in (items.get("external_localizer") or {}).items():
            located.setdefault(f"at {site}", record["localizer"]["external"])
    return located


def _select_left_out(
    table: pd.DataFrame | None, results: Mapping[str, Mapping[str, Any]]
) -> pd.DataFrame | None:
    """Return the scores of each site left out, of all experiments that have some."""
    own = [items.get("leave_one_site_out") for items in results.values()]
    tables = [one for one in own if one is not None]
    if tables:
        return pd.concat(tables, ignore_index=True)
    return table


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
    where = [name for name in ("data", "split_method") if name in table]
    shown = table[["model", "source", *where, *names, "seconds"]]
    return shown.rename(columns=names | {"seconds": "training (s)", "split_method": "split"})


def _list_notes(table: pd.DataFrame | None) -> list[str]:
    """Return what stands below the comparison: each note once."""
    if table is None or "note" not in table:
        return []
    return [str(note) for note in table["note"].dropna().unique() if note]
