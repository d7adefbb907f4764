"""From the merged parameter files to checked, frozen objects."""

from collections.abc import Mapping
from typing import Any, TypedDict

from busi_pipeline.errors import BadSettingError
from busi_pipeline.stats.classes import Classes

from .experiments import load_experiments
from .messages import check_settings, describe_unknown, refuse_renamed
from .schemas import (
    AdaptationSettings,
    AugmentationSettings,
    CrossValidationSettings,
    DaskSettings,
    DatasetSettings,
    DeduplicationSettings,
    EnsembleSettings,
    EvaluationSettings,
    ExperimentSettings,
    ExternalSettings,
    IngestionSettings,
    InputSettings,
    JoinedSettings,
    LocalizationSettings,
    MonitoringSettings,
    PackagingSettings,
    PredictionSettings,
    PrivacySettings,
    PromotionSettings,
    Settings,
    SiteSettings,
    SplitSettings,
    TrainingSettings,
)
from .sites import check_sites

GROUPS: dict[str, type[Settings]] = {
    "dataset": DatasetSettings,
    "ingestion": IngestionSettings,
    "deduplication": DeduplicationSettings,
    "split": SplitSettings,
    "cross_validation": CrossValidationSettings,
    "localization": LocalizationSettings,
    "input": InputSettings,
    "augmentation": AugmentationSettings,
    "training": TrainingSettings,
    "evaluation": EvaluationSettings,
    "ensemble": EnsembleSettings,
    "external": ExternalSettings,
    "adaptation": AdaptationSettings,
    "packaging": PackagingSettings,
    "prediction": PredictionSettings,
    "promotion": PromotionSettings,
    "monitoring": MonitoringSettings,
    "privacy": PrivacySettings,
    "dask": DaskSettings,
}
ALL_GROUPS = ("classes", "positive_classes", "lesion_free_classes", "sites", *GROUPS, "experiments")


class Parameters(TypedDict):
    """All parameters of a session, checked.

    `input`, `augmentation` and `training` are the shared values.
    """

    classes: Classes
    dataset: DatasetSettings
    ingestion: IngestionSettings
    deduplication: DeduplicationSettings
    split: SplitSettings
    cross_validation: CrossValidationSettings
    localization: LocalizationSettings
    input: InputSettings
    augmentation: AugmentationSettings
    training: TrainingSettings
    evaluation: EvaluationSettings
    ensemble: EnsembleSettings
    external: ExternalSettings
    adaptation: AdaptationSettings
    packaging: PackagingSettings
    prediction: PredictionSettings
    promotion: PromotionSettings
    monitoring: MonitoringSettings
    privacy: PrivacySettings
    dask: DaskSettings
    sites: dict[str, SiteSettings]
    experiments: dict[str, ExperimentSettings | JoinedSettings]


def check_parameters(
    parameters: Mapping[str, Any], command_line: Mapping[str, Any] | None = None
) -> Parameters:
    """Return the parameters as frozen objects.

    Args:
        parameters: all groups, merged over files, environment and command line.
        command_line: what came from `--params` alone; see `experiments.load_experiments`.

    Raises BadSettingError, one line, for an unknown, renamed or missing key and a wrong value.
    """
    refuse_renamed(parameters)
    for group in parameters:
        if group not in ALL_GROUPS:
            raise describe_unknown(str(group), ALL_GROUPS)
    for group in ALL_GROUPS:
        if group not in parameters:
            raise BadSettingError(
                f"the parameters lack the group {group}: add it to conf/, as in the project's own "
                "conf/base.",
                group,
            )
    checked: dict[str, Any] = {
        "classes": Classes(
            parameters["classes"],
            parameters["positive_classes"],
            parameters["lesion_free_classes"],
        )
    }
    for group, schema in GROUPS.items():
        checked[group] = check_settings(schema, parameters[group], group)
    checked["sites"] = check_sites(parameters["sites"], checked["ingestion"], checked["external"])
    checked["experiments"] = load_experiments(parameters, command_line)
    return checked  # type: ignore[return-value]
