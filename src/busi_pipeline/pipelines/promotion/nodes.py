"""Give a packaged model a role, take it back, and say who had which."""

import logging
from collections.abc import Mapping
from datetime import UTC, datetime, time
from typing import Any

import pandas as pd

from busi_pipeline.config.schemas import EvaluationSettings, PackagingSettings, PromotionSettings
from busi_pipeline.datasets.model_registry import ModelRegistry
from busi_pipeline.errors import BadInputError
from busi_pipeline.models.ledger import CHALLENGER, CHAMPION
from busi_pipeline.models.package_parts import read_tested
from busi_pipeline.models.packaged import PackagedModel
from busi_pipeline.stats.classes import Classes

from .gate import Evidence, list_gate

logger = logging.getLogger(__name__)

_CHAMPION_COLUMNS = ["from", "until", "experiment", "version", "registered", "who", "why"]


def check_gate(
    package: PackagedModel,
    export_comparison: pd.DataFrame,
    external_metrics: Mapping[str, Any] | None,
    registry: ModelRegistry,
    promotion: PromotionSettings,
    packaging: PackagingSettings,
    evaluation: EvaluationSettings,
    classes: Classes,
) -> pd.DataFrame:
    """Return what is asked of a packaged model, a row a line; see gate.list_gate.

    Args:
        package: the model.
        export_comparison: of its networks with Keras.
        external_metrics: of the delivered model at `external.site`; None where there are none.
        registry: knows the champion that it is compared with.
        promotion, packaging, evaluation, classes: settings.
    """
    champion, problem = None, ""
    try:
        champion = registry.find_role(CHAMPION)
    except BadInputError as error:
        problem = str(error)
    other = None if champion is None or champion.version == package.version else champion
    evidence = Evidence(
        package,
        read_tested(package),
        export_comparison,
        external_metrics,
        None if other is None else read_tested(other),
        problem,
    )
    gate = pd.DataFrame(list_gate(evidence, promotion, packaging, evaluation, classes)).assign(
        version=package.version,
        role=promotion.role,
        champion=registry.read_ledger().roles.get(CHAMPION, ""),
    )
    for row in gate.to_dict("records"):
        state = "not asked" if not row["asked"] else "passed" if row["passed"] else "FAILED"
        logger.info("%s: %s, %s", row["line"], state, row["finding"])
    return gate


def give_role(
    package: PackagedModel,
    promotion_gate: pd.DataFrame,
    registry: ModelRegistry,
    promotion: PromotionSettings,
) -> dict[str, Any]:
    """Give a packaged model its role, if it has all that is asked; return what the ledger says.

    Raises BadInputError, one line, that names what failed and by how much. Then no role changes.
    """
    why = _read_why(promotion)
    _check_gate_is_of(package, promotion_gate, registry, promotion)
    failed = promotion_gate[promotion_gate["asked"] & ~promotion_gate["passed"]]
    if len(failed):
        raise BadInputError(
            f"{package.name} {package.version} does not become the {promotion.role}: "
            f"{'; '.join(failed['finding'])}. Nothing was changed. What is asked stands in "
            "conf/base/parameters_promotion.yml."
        )
    columns = ["line", "value", "limit", "asked", "passed"]
    gate = [
        {column: None if pd.isna(row[column]) else row[column] for column in columns}
        for row in promotion_gate.to_dict("records")
    ]
    entry = registry.give(package, promotion.role, promotion.who, why, gate).entries[-1]
    logger.info(
        "%s %s is the %s from %s on",
        package.name,
        package.version,
        promotion.role,
        entry.time,
    )
    return entry._asdict()


def _check_gate_is_of(
    package: PackagedModel,
    gate: pd.DataFrame,
    registry: ModelRegistry,
    promotion: PromotionSettings,
) -> None:
    """Raise BadInputError where another model, role or rival was in the gate."""
    now = {
        "version": package.version,
        "role": promotion.role,
        "champion": registry.read_ledger().roles.get(CHAMPION, ""),
    }
    for name, value in now.items():
        if set(gate[name]) != {value}:
            raise BadInputError(
                f"the gate was passed with another {name} than {value or 'none'}: run `kedro run "
                f"--pipeline=promote_{package.name}` as a whole."
            )


def roll_back(registry: ModelRegistry, promotion: PromotionSettings) -> dict[str, Any]:
    """Make the previous model the champion again; return what the ledger says.

    Raises BadInputError where there is none.
    """
    entry = registry.roll_back(promotion.who, _read_why(promotion)).entries[-1]
    logger.info(
        "%s %s is the champion again, from %s on", entry.experiment, entry.version, entry.time
    )
    return entry._asdict()


def _read_why(promotion: PromotionSettings) -> str:
    if promotion.why is None:
        raise BadInputError(
            'say why, for the ledger: --params "promotion.why=higher AUC at both hospitals".'
        )
    return promotion.why


def list_champions(registry: ModelRegistry, promotion: PromotionSettings) -> pd.DataFrame:
    """Return who was the champion when: `from`, `until` ("" for now), `experiment`, `version`,
    `registered` (number of the MLflow version), `who`, `why`.

    Where `promotion.when` is a day or a moment, the log says which it was then; of a day, at its
    end.
    """
    ledger = registry.read_ledger()
    rows: list[dict[str, str]] = []
    for entry in ledger.entries:
        version = entry.roles.get(CHAMPION)
        if version is None or (rows and rows[-1]["version"] == version):
            continue
        if rows:
            rows[-1]["until"] = entry.time
        rows.append(
            {
                "from": entry.time,
                "until": "",
                "experiment": ledger.find_experiment(version),
                "version": version,
                "registered": entry.registered.get(version, ""),
                "who": entry.who,
                "why": entry.why,
            }
        )
    if promotion.when is not None:
        moment = read_moment(promotion.when)
        roles = ledger.roles_on(moment)
        named = {
            role: f"{ledger.find_experiment(version)} {version}" for role, version in roles.items()
        }
        logger.info(
            "on %s the champion was %s, the challenger %s",
            promotion.when,
            named.get(CHAMPION, "none"),
            named.get(CHALLENGER, "none"),
        )
    return pd.DataFrame(rows, columns=_CHAMPION_COLUMNS)


def read_moment(text: str) -> datetime:
    """Return a moment, with a time zone; of a day its end. Without a zone, UTC is meant.

    Raises BadInputError where the text is neither.
    """
    try:
        moment = datetime.fromisoformat(text)
    except ValueError:
        raise BadInputError(
            f"promotion.when must be a day, as 2026-11-30, or a moment, as 2026-11-30T12:00; got "
            f"{text!r}."
        ) from None
    if len(text) <= len("2026-11-30"):
        moment = datetime.combine(moment.date(), time.max)
    return moment if moment.tzinfo else moment.replace(tzinfo=UTC)


def check_registry(registry: ModelRegistry) -> pd.DataFrame:
    """Return what is wrong with the roles, a row each: `problem`. Empty where all is right."""
    return pd.DataFrame({"problem": registry.list_problems()}, dtype=str)


def report(problems: pd.DataFrame) -> None:
    """Raise BadInputError, one line, where there are problems."""
    if len(problems):
        raise BadInputError("; ".join(problems["problem"]))
    logger.info("the ledger, the kept packages and the aliases in MLflow agree")
