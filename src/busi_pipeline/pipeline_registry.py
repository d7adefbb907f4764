"""The project on one page: data flows one way.

    ingestion -> deduplication -> splitting -> [localization] -> preprocessing
        -> feature_extraction -> training(e) -> evaluation(e) -> explanation(e), model_comparison
        -> reporting

`e` is an experiment, an entry under `experiments` in the parameters. A hold-out split has one
training, in the namespace `<e>`; a cross-validation has one a fold, in
`<e>.cross_validation.<fold>`, and everything after training is the same for both. Nodes of no
experiment are in the namespace of their stage, a box in the lineage; their datasets are in none.
Beside them stand `leakage` (the same folds with duplicates parted), `bias_audit` (annotations,
occluded lesions) and `leave_one_site_out` (a fold is a site). An experiment with members has no
training of its own: its model is the mean of theirs. A delivered model goes on to a site that it
has not seen, and to those who use it:

    external.raw_images -> ingestion, deduplication, preprocessing -> external_validation(e)
        -> adaptation(e)
    <e>.model -> packaging(e) -> promotion(e) -> prediction -> monitoring

Runs that wait for an MLflow server go there by `delivery`: mlflow_outbox -> delivered_runs.
"""

from collections.abc import Mapping, Sequence

from kedro.pipeline import Node, Pipeline

from busi_pipeline.config.checking import Parameters
from busi_pipeline.config.experiments import ENSEMBLE, EXTERNAL, name_input
from busi_pipeline.config.loader import allow_dots, load_active_parameters
from busi_pipeline.config.schemas import ExperimentSettings, JoinedSettings, ModelSettings
from busi_pipeline.learning.folds import (
    Fold,
    SiteFold,
    list_folds,
    list_site_folds,
    list_within_site_folds,
)
from busi_pipeline.pipelines import (
    adaptation,
    bias_audit,
    deduplication,
    delivery,
    evaluation,
    explanation,
    external_validation,
    feature_extraction,
    ingestion,
    leakage,
    leave_one_site_out,
    localization,
    model_comparison,
    monitoring,
    packaging,
    prediction,
    preprocessing,
    promotion,
    reporting,
    splitting,
    training,
)

_CROSS_VALIDATION, _RANDOM_FOLDS = "cross_validation", "random_folds"


def register_pipelines() -> dict[str, Pipeline]:
    """Return the pipelines by name, for the parameters of the session.

    Raises BadInputError where a parameter is wrong.
    """
    with allow_dots():
        return create_pipelines(load_active_parameters())


def create_pipelines(parameters: Parameters) -> dict[str, Pipeline]:
    """Return the pipelines by name."""
    experiments, locating = parameters["experiments"], parameters["localization"].backbones
    in_default = [name for name, settings in experiments.items() if settings.in_default]
    folds = list(list_folds(parameters["cross_validation"]))
    first_folds = [fold for fold in folds if fold.repeat == 1]
    sites = parameters["ingestion"].sites
    of_sites = {
        leave_one_site_out.LEAVE_OUT: list_site_folds(sites),
        leave_one_site_out.WITHIN: list_within_site_folds(
            sites, parameters["cross_validation"].folds
        ),
    }

    ingest = ingestion.create_pipeline()
    deduplicate = ingest + deduplication.create_pipeline()
    split = deduplicate + splitting.create_hold_out_pipeline()
    assign = deduplicate + splitting.create_folds_pipeline(folds)
    assign_randomly = assign + splitting.create_random_folds_pipeline(first_folds)

    assign_sites = assign
    for evaluated, site_folds in of_sites.items():
        assign_sites += splitting.create_site_folds_pipeline(evaluated, site_folds)
    prepared, extracted, trained, validated = {}, {}, {}, {}
    leaked, audited, left_out = {}, {}, {}
    single = {n: own for n, own in experiments.items() if isinstance(own, ExperimentSettings)}
    joined = {n: own for n, own in experiments.items() if isinstance(own, JoinedSettings)}
    for name, settings in single.items():
        locates = settings.input.needs_lesion
        nothing = Pipeline([])
        prepared[name] = _prepare_hold_out(name, settings, locating)
        trained[name] = prepared[name] + _train_hold_out(name, settings)
        images, masks, occluded = (
            name_input(what, name, settings, _CROSS_VALIDATION)
            for what in ("images", "masks", "occluded_images")
        )
        extracted[name] = (
            (localization.create_folds_pipeline(locating) if locates else nothing)
            + preprocessing.create_images_pipeline(name, settings, _CROSS_VALIDATION)
            + preprocessing.create_cross_validation_pipeline(name)
            + feature_extraction.create_pipeline(name, images, _CROSS_VALIDATION)
        )
        validated[name] = (
            extracted[name]
            + training.create_cross_validation_pipeline(name, _CROSS_VALIDATION, folds)
            + evaluation.create_cross_validation_pipeline(name, _CROSS_VALIDATION)
        )
        leaked[name] = (
            validated[name]
            + training.create_cross_validation_pipeline(name, _RANDOM_FOLDS, first_folds)
            + evaluation.create_cross_validation_pipeline(name, _RANDOM_FOLDS)
            + leakage.create_experiment_pipeline(name)
        )
        audited[name] = (
            validated[name]
            + preprocessing.create_masks_pipeline(name, settings, _CROSS_VALIDATION)
            + bias_audit.create_images_pipeline(images, masks, occluded)
            + preprocessing.create_occluded_pipeline(name)
            + feature_extraction.create_pipeline(name, occluded, _CROSS_VALIDATION, "occluded_")
            + training.create_linear_probe_pipeline(name, _CROSS_VALIDATION, folds, "occluded_")
            + evaluation.create_occluded_pipeline(name)
            + bias_audit.create_experiment_pipeline(name, masks)
        )
        left_out[name] = extracted[name] + leave_one_site_out.create_experiment_pipeline(name)
        for evaluated, site_folds in of_sites.items():
            # Of a site left out, no mask may have taught where lesions are.
            own_boxes = locates and evaluated == leave_one_site_out.LEAVE_OUT
            if own_boxes:
                left_out[name] += _locate_left_out(name, settings, site_folds, locating)
            left_out[name] += training.create_cross_validation_pipeline(
                name, evaluated, site_folds, own_boxes
            ) + evaluation.create_calibration_pipeline(name, evaluated)
    for name, own in joined.items():
        members = own.members
        if own.of_folds:
            trained[name] = assign + _add(extracted, members) + _join_folds(name, own, first_folds)
        else:
            trained[name] = _add(trained, members) + _join_hold_out(name, own)
        validated[name] = _add(validated, members) + _average_members(
            name, members, _CROSS_VALIDATION
        )
        left_out[name] = sum(
            (_average_members(name, members, evaluated) for evaluated in of_sites),
            _add(left_out, members) + leave_one_site_out.create_experiment_pipeline(name),
        )
    external = (
        ingestion.create_external_pipeline()
        + external_validation.create_site_pipeline()
        + deduplication.create_external_pipeline()
    )
    tested_outside = {name: _test_outside(name, own) for name, own in experiments.items()}
    adapted = {name: adaptation.create_pipeline(name) for name in experiments}
    packed = {name: _pack(name, own) for name, own in experiments.items()}
    audit = assign + bias_audit.create_annotations_pipeline()
    # A bag is tested out of fold, on other images than the hold-out split has.
    compare = model_comparison.create_pipeline(
        [*single, *(name for name, own in joined.items() if not own.of_folds)]
    )
    ensemble = evaluation.create_ensemble_pipeline(
        in_default
    ) + model_comparison.create_pairwise_pipeline(
        {name: f"{name}.{_CROSS_VALIDATION}.predictions" for name in (*in_default, ENSEMBLE)},
        "cross_validation_comparisons",
        _CROSS_VALIDATION,
    )

    def join(parts: dict[str, Pipeline], first: Pipeline) -> Pipeline:
        return first + _add(parts, in_default)

    leave_out = {
        "leave_one_site_out": join(left_out, assign_sites)
        + leave_one_site_out.create_summary_pipeline(in_default),
        **{f"leave_one_site_out_{name}": assign_sites + part for name, part in left_out.items()},
    }
    if len(sites) == 1:
        leave_out = dict.fromkeys(leave_out, leave_one_site_out.create_refusal_pipeline())

    return _group_by_stage(
        {
            "ingestion": ingest,
            "deduplication": deduplicate,
            "splitting": split,
            "preprocessing": join(prepared, split),
            **{f"train_{name}": split + part for name, part in trained.items()},
            **{f"cross_validate_{name}": assign + part for name, part in validated.items()},
            **{f"leakage_{name}": assign_randomly + part for name, part in leaked.items()},
            **{f"bias_audit_{name}": audit + part for name, part in audited.items()},
            **leave_out,
            **{
                f"validate_external_{name}": external + part
                for name, part in tested_outside.items()
            },
            **{f"adapt_{name}": part for name, part in adapted.items()},
            **{f"package_{name}": part for name, part in packed.items()},
            **{f"promote_{name}": promotion.create_pipeline(name) for name in experiments},
            "leakage": join(leaked, assign_randomly) + leakage.create_summary_pipeline(in_default),
            "cross_validation": join(validated, assign) + ensemble,
            "validate_external": join(tested_outside, external)
            + external_validation.create_comparison_pipeline(in_default),
            "adapt": join(adapted, Pipeline([])),
            "package": join(packed, Pipeline([])),
            "rollback": promotion.create_rollback_pipeline(),
            "ledger": promotion.create_ledger_pipeline(),
            "sync_mlflow": delivery.create_pipeline(),
            "predict": prediction.create_pipeline(),
            "monitor": monitoring.create_pipeline(),
            "__default__": join(trained, split) + compare,
            # Last: Kedro-Viz draws a dataset where the first pipeline has it that it comes across.
            "model_comparison": compare,
            "reporting": reporting.create_pipeline(
                [name for name, own in single.items() if own.baseline_of is None], list(joined)
            ),
        }
    )


def _group_by_stage(pipelines: Mapping[str, Pipeline]) -> dict[str, Pipeline]:
    """Put each node outside a namespace into that of its stage, which is its tag.

    Kedro-Viz draws a namespace as one box. Datasets keep their names.
    """
    return {name: _group_nodes(pipeline) for name, pipeline in pipelines.items()}


def _group_nodes(pipeline: Pipeline) -> Pipeline:
    grouped = Pipeline([node for node in pipeline.nodes if node.namespace])
    loose = [node for node in pipeline.nodes if not node.namespace]
    for stage in dict.fromkeys(_name_stage(node) for node in loose):
        grouped += Pipeline(
            [node for node in loose if _name_stage(node) == stage],
            namespace=stage,
            prefix_datasets_with_namespace=False,
        )
    return grouped


def _name_stage(node: Node) -> str:
    (stage,) = node.tags
    # Namespaces of these names are of the folds, before training; this compares what came of them.
    of_folds = (_CROSS_VALIDATION, leave_one_site_out.LEAVE_OUT)
    return "model_comparison" if stage in of_folds else stage


def _add(parts: Mapping[str, Pipeline], names: Sequence[str]) -> Pipeline:
    return sum((parts[name] for name in names), Pipeline([]))


def _prepare_hold_out(name: str, settings: ExperimentSettings, locating: Sequence[str]) -> Pipeline:
    """What the network sees of the hold-out split, and how it is augmented."""
    prepared = preprocessing.create_images_pipeline(
        name, settings
    ) + preprocessing.create_hold_out_pipeline(name, name_input("images", name, settings))
    if settings.input.needs_lesion:
        prepared += localization.create_hold_out_pipeline(locating)
    return prepared


def _train_hold_out(name: str, settings: ExperimentSettings) -> Pipeline:
    """Trained, evaluated, explained, delivered."""
    images, masks = (name_input(what, name, settings) for what in ("images", "masks"))
    return (
        feature_extraction.create_pipeline(name, images)
        + training.create_hold_out_pipeline(name)
        + evaluation.create_hold_out_pipeline(name, images, settings.input.needs_lesion)
        + preprocessing.create_masks_pipeline(name, settings)
        + explanation.create_pipeline(name, images, masks)
        + reporting.create_experiment_pipeline(name)
    )


def _join_hold_out(name: str, settings: JoinedSettings) -> Pipeline:
    """The models of the members on the hold-out split -> one, evaluated and delivered."""
    images = name_input("images", name, settings)
    return (
        training.create_joined_pipeline(name, settings.members)
        + preprocessing.create_images_pipeline(name, settings)
        + evaluation.create_hold_out_pipeline(
            name, images, settings.input.needs_lesion, is_joined=True
        )
        + reporting.create_experiment_pipeline(name)
    )


def _join_folds(name: str, settings: JoinedSettings, folds: Sequence[Fold]) -> Pipeline:
    """The networks of the members' folds -> one model, evaluated out of fold and delivered."""
    bags = [
        training.create_bag_pipeline(member, _CROSS_VALIDATION, folds)
        for member in settings.members
    ]
    return (
        sum(bags, training.create_joined_pipeline(name, settings.members, settings.of_folds))
        + evaluation.create_bag_pipeline(name, settings.members, settings.input.needs_lesion)
        + reporting.create_experiment_pipeline(name)
    )


def _average_members(name: str, members: Sequence[str], evaluated: str) -> Pipeline:
    """The mean of the members on the same folds, evaluated as theirs are."""
    mean = evaluation.create_members_pipeline(name, evaluated, members)
    if evaluated == _CROSS_VALIDATION:
        return mean + evaluation.create_cross_validation_pipeline(name, evaluated)
    return mean + evaluation.create_calibration_pipeline(name, evaluated)


def _test_outside(name: str, settings: ModelSettings) -> Pipeline:
    """A delivered model at the external site, with the boxes of readers where it needs boxes."""
    locates = settings.input.needs_lesion
    tested = (
        preprocessing.create_images_pipeline(name, settings, EXTERNAL)
        + external_validation.create_experiment_pipeline(
            name, name_input("images", name, settings, EXTERNAL), locates
        )
        + reporting.create_external_pipeline(name)
    )
    if locates:
        tested += localization.create_external_pipeline(name)
        tested += preprocessing.create_reader_images_pipeline(name)
    return tested


def _pack(name: str, settings: ModelSettings) -> Pipeline:
    """A delivered model in one folder, by the images it learned from."""
    images, division = name_input("images", name, settings), "split_manifest"
    if isinstance(settings, JoinedSettings) and settings.of_folds:
        # Its members see the same; the images of all folds are theirs.
        images = name_input("images", settings.members[0], settings, _CROSS_VALIDATION)
        division = f"{_CROSS_VALIDATION}.fold_manifest"
    return packaging.create_pipeline(name, images, division)


def _locate_left_out(
    name: str,
    settings: ExperimentSettings,
    folds: Sequence[SiteFold],
    locating: Sequence[str],
) -> Pipeline:
    """Boxes, images and features of each site left out, by a localizer that has not seen it."""
    namespaces = [f"{leave_one_site_out.LEAVE_OUT}.{fold.name}" for fold in folds]
    located = localization.create_left_out_pipeline(namespaces, locating)
    for namespace in namespaces:
        images = name_input("images", name, settings, namespace)
        located += (
            preprocessing.create_images_pipeline(name, settings, namespace)
            + preprocessing.create_fold_pipeline(name, namespace)
            + feature_extraction.create_pipeline(name, images, namespace)
        )
    return located
