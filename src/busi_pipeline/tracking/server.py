"""An MLflow server: whether it is one, where it is, and whether it answers."""

import ipaddress
import os
import socket
from http.client import HTTPException
from urllib.error import HTTPError, URLError
from urllib.parse import urlsplit
from urllib.request import Request, urlopen

import sqlalchemy
from sqlalchemy.exc import SQLAlchemyError

from busi_pipeline.errors import BadInputError

_SCHEMES = ("http", "https")
_SECONDS = 4.0
# MLflow tries for minutes by default. (name, value where the user gave none)
_PATIENCE = (("MLFLOW_HTTP_REQUEST_TIMEOUT", "20"), ("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "1"))


def is_server(tracking_uri: str) -> bool:
    """Return whether a tracking URI names a server, not a store that this process opens."""
    return urlsplit(tracking_uri).scheme in _SCHEMES


def refuse_credentials(tracking_uri: str, is_sent: bool = False) -> None:
    """Raise BadInputError for a URI with a password, which would stand in logs, pages and files.

    Args:
        tracking_uri: of a server, or of a database.
        is_sent: whether it goes to other machines, so that a database's stays there, too.
    """
    parts = urlsplit(tracking_uri)
    if parts.scheme in _SCHEMES and "@" in parts.netloc:
        raise BadInputError(
            f"the address of the MLflow server {parts.hostname} has a name or a password in it, "
            "which would stand in logs and pages: set MLFLOW_TRACKING_USERNAME and "
            "MLFLOW_TRACKING_PASSWORD instead, and leave them out of the address."
        )
    if is_sent and parts.password is not None:
        raise BadInputError(
            f"the address of the database {name_store(tracking_uri)} has a password in it, which "
            "would go to Dask's scheduler: leave it out. Each machine finds it in ~/.pgpass or "
            "PGPASSWORD (PostgreSQL)."
        )


def name_store(tracking_uri: str) -> str:
    """Return the address of a server or a database without name and password."""
    parts = urlsplit(tracking_uri)
    return parts._replace(netloc=parts.netloc.rpartition("@")[2]).geturl()


def is_this_machine(tracking_uri: str) -> bool:
    """Return whether a server is at this machine, by its name: what is sent stays here then."""
    host = urlsplit(tracking_uri).hostname or ""
    if host in ("localhost", socket.gethostname()):
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def find_problem(tracking_uri: str) -> str:
    """Return why a server cannot be used now, "" where it can; takes ten seconds at most.

    Whoever answers is one: what MLflow says to a request is MLflow's matter.
    """
    address = f"{tracking_uri.rstrip('/')}/health"
    try:
        with urlopen(Request(address), timeout=_SECONDS):  # noqa: S310 - http or https: `is_server`
            return ""
    except HTTPError as error:
        return f"it answers {error.code}" if error.code >= 500 else ""
    except TimeoutError:
        return f"no answer within {_SECONDS:.0f} s"
    except URLError as error:
        if isinstance(error.reason, TimeoutError):
            return f"no answer within {_SECONDS:.0f} s"
        return getattr(error.reason, "strerror", None) or str(error.reason)
    except (OSError, ValueError, HTTPException) as error:
        return str(error) or type(error).__name__


def find_database_problem(tracking_uri: str) -> str:
    """Return why a database cannot be used now, "" where it can; takes seconds."""
    # MLflow would try for minutes.
    waiting = {"connect_timeout": int(_SECONDS)} if "sqlite" not in tracking_uri else {}
    try:
        sqlalchemy.create_engine(tracking_uri, connect_args=waiting).connect().close()
    except ModuleNotFoundError as error:
        return f"{error.name} is not installed: `pip install 'busi_pipeline[postgresql]'`"
    except (SQLAlchemyError, TypeError) as error:
        return " ".join(str(getattr(error, "orig", None) or error).split())
    return ""


def limit_patience() -> None:
    """Let MLflow give up on a server after seconds; a variable that is set already stays."""
    for name, value in _PATIENCE:
        os.environ.setdefault(name, value)
