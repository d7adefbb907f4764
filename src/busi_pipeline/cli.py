"""Commands of this project: `kedro run` with `--verbose` and one line a mistake; `runs`; `viz`."""

import logging
from typing import Any

import click
import yaml
from kedro.framework.cli.project import run as kedro_run
from kedro.framework.cli.utils import KedroCliError
from kedro_viz.launchers.cli.main import viz

from busi_pipeline.errors import BadInputError
from busi_pipeline.request import check_runner_name
from busi_pipeline.runs_command import runs

# What conf/logging.yml holds back.
_LIBRARIES = ("kedro", "kedro_mlflow.framework", "tensorflow", "py.warnings")


@click.group(name="busi_pipeline")
def cli() -> None:
    """Hold the commands that Kedro looks for here."""


def _set_verbosity(context: click.Context, option: click.Parameter, is_verbose: bool) -> None:
    if is_verbose:
        KedroCliError.VERBOSE_ERROR = True
        for name in _LIBRARIES:
            logging.getLogger(name).setLevel(logging.INFO)


class _RunCommand(click.Command):
    """Leaves off what Kedro and click print around the line that says what is wrong."""

    def make_context(self, *args: Any, **kwargs: Any) -> click.Context:
        """Read the options; what cannot be read is one line."""
        try:
            return super().make_context(*args, **kwargs)
        except click.UsageError as error:
            error.ctx = None  # else the usage stands above it, in three lines
            raise
        except yaml.YAMLError as error:  # Kedro reads the values of `--params` as YAML
            said = " ".join(str(error).split())
            raise BadInputError(
                f"--params (or the file of --config) has a value that is no YAML: {said}. Put it "
                "in quotes."
            ) from None

    def invoke(self, ctx: click.Context) -> Any:
        """Run; Kedro would import the runner before the session can look at it."""
        check_runner_name(ctx.params["runner"])
        return super().invoke(ctx)


run = _RunCommand(
    name="run",
    callback=kedro_run.callback,
    help=kedro_run.help,
    params=[
        *kedro_run.params,
        click.Option(
            ["--verbose", "-v"],
            is_flag=True,
            expose_value=False,
            callback=_set_verbosity,
            help="Log what Kedro loads, saves and runs, and warnings of libraries.",
        ),
    ],
)
cli.add_command(run)
cli.add_command(runs)
# `viz` is a command of any folder, which Kedro prefers to one that stands here.
viz.lazy_subcommands["run"] = "busi_pipeline.viz_command.run"
