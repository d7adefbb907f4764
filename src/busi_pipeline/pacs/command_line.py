"""`python -m busi_pipeline dicom-node`: images from a PACS, without Kedro, TensorFlow or MLflow."""

import os
from collections.abc import Sequence
from pathlib import Path

import click

from busi_pipeline.errors import BadInputError
from busi_pipeline.pacs.settings import NodeSettings, make_node_settings
from busi_pipeline.serving.command_line import choose_model

_DEFAULT = NodeSettings(to="")


class _Titles(click.types.StringParamType):
    """AE titles; of a variable with a comma, between commas, since a title may have spaces."""

    def split_envvar_value(self, rv: str) -> Sequence[str]:
        """Return the titles of an environment variable."""
        return (
            [title.strip() for title in rv.split(",") if title.strip()] if "," in rv else rv.split()
        )


_FILE = click.Path(path_type=Path, dir_okay=False)
_CREDENTIALS = {
    "to_credentials": "BUSI_NODE_TO_CREDENTIALS",
    "poll_credentials": "BUSI_NODE_POLL_CREDENTIALS",
}


@click.command(
    name="dicom-node", context_settings={"auto_envvar_prefix": "BUSI_NODE", "show_default": True}
)
@click.option(
    "--to", required=True, help="Where results go: AET@host:port, or the URL of a DICOMweb service."
)
@click.option("--to-tls", is_flag=True, help="C-STORE goes over TLS.")
@click.option("--ae-title", default=_DEFAULT.ae_title, help="Of the node; callers must name it.")
@click.option("--host", default=_DEFAULT.host, help="Any other needs --allow.")
@click.option("--port", type=int, default=_DEFAULT.port)
@click.option(
    "--allow", type=_Titles(), multiple=True, help="AE title that may send; once for each."
)
@click.option("--tls-certificate", type=_FILE, help="Of the node, PEM: it listens with TLS.")
@click.option("--tls-key", type=_FILE, help="Of the certificate, PEM, without a passphrase.")
@click.option("--tls-ca", type=_FILE, help="PEM: others must have a certificate of it.")
@click.option("--spool", type=click.Path(path_type=Path), default=_DEFAULT.spool)
@click.option("--poll", help="URL of a DICOMweb service to look for images at.")
@click.option(
    "--poll-seconds", type=float, default=_DEFAULT.poll_seconds, help="Between two looks."
)
@click.option(
    "--poll-days", type=int, default=_DEFAULT.poll_days, help="Of studies, today and before."
)
@click.option("--any-body-part", is_flag=True, help="Answer on other body parts than the breast.")
@click.option(
    "--probability",
    default=_DEFAULT.probability,
    help="What the probability is called in reports: code^scheme^meaning.",
)
@click.option("--models", type=click.Path(path_type=Path), default=_DEFAULT.models)
@choose_model
@click.option("--max-bytes", type=int, default=_DEFAULT.max_bytes, help="Of an object.")
@click.option("--associations", type=int, default=_DEFAULT.associations, help="At once.")
@click.option(
    "--free-bytes", type=int, default=_DEFAULT.free_bytes, help="That stay free on the disk."
)
@click.option(
    "--retry-seconds",
    type=float,
    default=_DEFAULT.retry_seconds,
    help="Longest wait to send again.",
)
def dicom_node(allow: Sequence[str], **given: object) -> None:
    """Answer on the ultrasound images of a PACS with structured reports.

    Every option can be an environment variable: BUSI_NODE_PORT; several AE titles stand in
    BUSI_NODE_ALLOW with spaces or commas between. A title with a space needs a comma after it.
    Credentials, `name:password` or `Bearer token`, are
    environment variables only: BUSI_NODE_TO_CREDENTIALS and BUSI_NODE_POLL_CREDENTIALS.
    """
    try:
        import imagecodecs  # noqa: F401  # asked for here, not with the first image

        from busi_pipeline.pacs.node import run_node
    except ModuleNotFoundError as error:
        raise BadInputError(
            f'the node needs {error.name}: pip install "busi_pipeline[pacs]".'
        ) from None
    secrets = {name: os.environ.get(variable) for name, variable in _CREDENTIALS.items()}
    run_node(make_node_settings(allow=tuple(allow), **given, **secrets))
