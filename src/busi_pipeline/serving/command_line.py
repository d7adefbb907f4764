"""`python -m busi_pipeline serve`: the HTTP service, without Kedro, TensorFlow or MLflow."""

from pathlib import Path

import click

from busi_pipeline.errors import BadInputError

_KEY = "BUSI_SERVE_API_KEY"


@click.command(
    name="serve", context_settings={"auto_envvar_prefix": "BUSI_SERVE", "show_default": True}
)
@click.option("--models", type=click.Path(path_type=Path), default="data/06_models")
@click.option(
    "--model",
    help="Name of an experiment, champion, challenger or previous, a version, or the folder of a "
    "package; by default the champion, or the only one.",
)
@click.option("--host", default="127.0.0.1", help="Any other needs a key.")
@click.option("--port", type=int, default=8000)
@click.option("--max-bytes", type=int, default=100_000_000, help="Of a request.")
@click.option("--max-held", type=int, default=1_000_000_000, help="Bytes of all requests at once.")
@click.option("--max-files", type=int, default=32, help="Of a request.")
@click.option("--waiting", type=int, default=64, help="Images that may wait.")
@click.option("--threads", type=int, default=1, help="Images computed at once, by one model.")
@click.option("--header-seconds", type=float, default=10.0, help="For the headers to come.")
@click.option("--body-seconds", type=float, default=30.0, help="For the body to come.")
@click.option("--answer-seconds", type=float, default=60.0, help="For an image, waiting included.")
@click.option("--shadow", type=click.Path(path_type=Path), help="File of a challenger's answers.")
@click.option("--api-key", envvar=_KEY, hidden=True)
def serve(**given: object) -> None:
    """Answer about images over HTTP.

    Every option can be an environment variable: BUSI_SERVE_PORT. The key that requests must bring
    is BUSI_SERVE_API_KEY.
    """
    try:
        from busi_pipeline.serving.server import run_server
        from busi_pipeline.serving.settings import make_settings
    except ModuleNotFoundError as error:
        raise BadInputError(
            f'the service needs {error.name}: pip install "busi_pipeline[serve]".'
        ) from None
    run_server(make_settings(**given))
