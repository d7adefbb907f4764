"""Kedro's settings of the project; see https://docs.kedro.org/en/stable/configure/."""

from busi_pipeline.config import RESOLVERS, ProjectConfigLoader
from busi_pipeline.hooks import ClearErrors, RunProvenance, StageTimes

HOOKS = (ClearErrors(), RunProvenance(), StageTimes())
DISABLE_HOOKS_FOR_PLUGINS = ("kedro-telemetry",)

CONFIG_LOADER_CLASS = ProjectConfigLoader
CONFIG_LOADER_ARGS = {
    "base_env": "base",
    "default_run_env": "local",
    "custom_resolvers": RESOLVERS,
    # An environment that overrides one key must not delete the others beside it.
    "merge_strategy": {"parameters": "soft", "globals": "soft", "mlflow": "soft"},
}
