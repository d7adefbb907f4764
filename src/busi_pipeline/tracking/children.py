"""Child runs: one a training, however often it is taken from the cache."""

from collections.abc import Mapping

from mlflow.entities import Run
from mlflow.tracking import MlflowClient
from mlflow.utils.mlflow_tags import MLFLOW_PARENT_RUN_ID, MLFLOW_RUN_NAME

_CACHED, _TRAINING, _FOLD = "training_cached", "training_sha256", "fold"


def find_child(
    client: MlflowClient, experiment_id: str, tags: Mapping[str, str], parent: str
) -> Run | None:
    """Return the run that a parent has of this very training, from a process that was lost, say.

    Args:
        client: of the store.
        experiment_id: in it.
        tags: of the child as it would be; see `adopt_child`.
        parent: id of the run that asks.
    """
    condition = f"tags.`{MLFLOW_PARENT_RUN_ID}` = '{parent}'"
    children: list[Run] = client.search_runs([experiment_id], condition)
    same = (MLFLOW_RUN_NAME, _TRAINING, _FOLD)
    return next(
        (run for run in children if all(run.data.tags.get(k) == tags.get(k) for k in same)), None
    )


def adopt_child(
    client: MlflowClient, experiment_id: str, tags: Mapping[str, str], parent: str
) -> str | None:
    """Return the run that a kept training has already; None where it needs one of its own.

    The run comes to the new parent where its own was ended before it was done: so a
    cross-validation that was interrupted and resumed has all its folds. Else it stays.

    Args:
        client: of the store.
        experiment_id: in it.
        tags: of the child as it would be: its name, `training_cached`, `training_sha256`, `fold`.
        parent: id of the run that asks.
    """
    if tags.get(_CACHED) != "yes":
        return None
    condition = " and ".join(
        f"tags.`{key}` = '{tags[key]}'" for key in (_TRAINING, _FOLD) if key in tags
    )
    found: list[Run] = [
        run
        for run in client.search_runs([experiment_id], condition)
        if run.data.tags.get(MLFLOW_RUN_NAME) == tags.get(MLFLOW_RUN_NAME)
        and run.info.status == "FINISHED"
        and MLFLOW_PARENT_RUN_ID in run.data.tags
    ]
    if not found:
        return None
    child = found[0].info.run_id
    before = found[0].data.tags[MLFLOW_PARENT_RUN_ID]
    if before != parent and client.get_run(before).info.status in ("FAILED", "KILLED"):
        client.set_tag(child, MLFLOW_PARENT_RUN_ID, parent)
    return str(child)
