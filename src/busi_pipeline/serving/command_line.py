"""`python -m busi_pipeline serve`: the HTTP service, without Kedro, TensorFlow or MLflow."""

from pathlib import Path

import click

from busi_pipeline.errors import BadInputError
from busi_pipeline.serving.settings import ServiceSettings, make_settings

_KEY = "BUSI_SERVE_API_KEY"
_DEFAULT = ServiceSettings()
choose_model = click.option(
    "--model",
    help="Name of an experiment, champion, challenger or previous, a version, or the folder of a "
    "package; by default the champion, or the only one.",
)


@click.command(
    name="serve", context_settings={"auto_envvar_prefix": "BUSI_SERVE", "show_default": True}
)
@click.option("--models", type=click.Path(path_type=Path), default=_DEFAULT.models)
@choose_model
@click.option("--host", default=_DEFAULT.host, help="Any other needs a key.")
@click.option("--port", type=int, default=_DEFAULT.port)
@click.option("--max-bytes", type=int, default=_DEFAULT.max_bytes, help="Of a request.")
@click.option(
    "--max-held", type=int, default=_DEFAULT.max_held, help="Bytes of all requests at once."
)
@click.option("--max-files", type=int, default=_DEFAULT.max_files, help="Of a request.")
@click.option("--waiting", type=int, default=_DEFAULT.waiting, help="Images that may wait.")
@click.option(
    "--threads", type=int, default=_DEFAULT.threads, help="Images computed at once, by one model."
)
@click.option(
    "--header-seconds", type=float, default=_DEFAULT.header_seconds, help="For the headers to come."
)
@click.option(
    "--body-seconds", type=float, default=_DEFAULT.body_seconds, help="For the body to come."
)
@click.option(
    "--answer-seconds",
    type=float,
    default=_DEFAULT.answer_seconds,
    help="For an image, waiting included.",
)
@click.option("--shadow", type=click.Path(path_type=Path), help="File of a challenger's answers.")
@click.option("--page/--no-page", default=_DEFAULT.page, help="The page of a second reader.")
@click.option("--worklist", type=click.Path(path_type=Path), help="Folder of images to read.")
@click.option(
    "--readings",
    type=click.Path(path_type=Path),
    help="File of what readers say; by default 07_model_output/readings.jsonl beside the models.",
)
@click.option(
    "--truth", type=click.Path(path_type=Path), help="CSV file with byte_sha256 and label."
)
@click.option(
    "--results/--no-results",
    default=_DEFAULT.results,
    help="Whether readers see the table of readers; not while a study runs.",
)
@click.option(
    "--prevalence",
    type=float,
    default=_DEFAULT.prevalence,
    help="Share of positive images where the page is used.",
)
@click.option(
    "--session-minutes",
    type=float,
    default=_DEFAULT.session_minutes,
    help="Without a request, until a reader is signed out.",
)
@click.option("--api-key", envvar=_KEY, hidden=True)
def serve(**given: object) -> None:
    """Answer about images over HTTP.

    Every option can be an environment variable: BUSI_SERVE_PORT. The key that requests must bring
    is BUSI_SERVE_API_KEY.
    """
    try:
        from busi_pipeline.serving.server import run_server
    except ModuleNotFoundError as error:
        raise BadInputError(
            f'the service needs {error.name}: pip install "busi_pipeline[serve]".'
        ) from None
    run_server(make_settings(**given))
