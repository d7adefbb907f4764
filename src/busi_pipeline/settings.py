"""Kedro's settings of the project; see https://docs.kedro.org/en/stable/configure/."""

from busi_pipeline.config.context import ProjectContext
from busi_pipeline.config.loader import LOADER_ARGUMENTS, ProjectConfigLoader
from busi_pipeline.damaged_files import DamagedFiles
from busi_pipeline.datasets.whole_file_system import write_files_whole
from busi_pipeline.hooks import (
    ActiveSettings,
    ClearErrors,
    FlatMlflowHook,
    FoldProgress,
    ReportPlace,
    RunProvenance,
    StageTimes,
)
from busi_pipeline.run_page import RunPage
from busi_pipeline.session import ProjectSession
from busi_pipeline.trained_models import CheckTrainedModels

write_files_whole()

HOOKS = (
    ActiveSettings(),
    DamagedFiles(),
    ClearErrors(),
    CheckTrainedModels(),
    FlatMlflowHook(),
    RunProvenance(),
    StageTimes(),
    FoldProgress(),
    RunPage(),
    ReportPlace(),
)
# FlatMlflowHook is kedro-mlflow's own hook and a little more.
DISABLE_HOOKS_FOR_PLUGINS = ("kedro-telemetry", "kedro_mlflow")

CONTEXT_CLASS = ProjectContext
SESSION_CLASS = ProjectSession
CONFIG_LOADER_CLASS = ProjectConfigLoader
CONFIG_LOADER_ARGS = LOADER_ARGUMENTS
