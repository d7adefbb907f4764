"""Whom a node listens to, where its results go, and how much it takes."""

import re
import string
from pathlib import Path
from typing import Annotated, Any, Final, NamedTuple

from pydantic import BaseModel, ConfigDict, Field

from busi_pipeline.errors import BadInputError
from busi_pipeline.serving.settings import Count, Seconds, check_settings, is_loopback

PROBABILITY: Final = "positive^99BUSI^Probability of the positive classes"
"""Of the positive classes together: code^scheme^meaning."""
_STORE = re.compile(r"([^@]+)@(\[[0-9A-Fa-f:.]+\]|[^@:/\s]+):(\d{1,5})")
_WEB = re.compile(r"(https?)://(\[[0-9A-Fa-f:.]+\]|[^@:/\s?#]+)(:\d{1,5})?(/[^\s?#]*)?")
_CODE = re.compile(r"[!-\]_-~]{1,16}\^[!-\]_-~]{1,16}\^[ -\]_-~]{1,64}")
_TITLE_CHARACTERS = set(string.printable[:95]) - {"\\"}


class StoreAddress(NamedTuple):
    """Attributes: AE `title`, `host` and `port` of an archive that takes C-STORE."""

    title: str
    host: str
    port: int


class NodeSettings(BaseModel):
    """Settings of the node.

    Attributes:
        models: folder of the packaged models, such as `data/06_models`.
        model: an experiment, a role, a version or a folder; None for the champion, or the only one.
        spool: folder of what came and is not yet answered.
        to: where results go: `AET@host:port`, or the address of a DICOMweb service.
        to_tls: whether C-STORE goes over TLS.
        to_credentials: of the DICOMweb service that results go to: `name:password` or
            `Bearer token`; None for none.
        ae_title: of the node.
        host, port: to listen at.
        allow: AE titles that may send; empty for any, on loopback only.
        tls_certificate, tls_key: files of the node's own certificate and its key (PEM).
        tls_ca: file of the certificates that others must have; with it, both sides prove who they
            are.
        poll: address of a DICOMweb service to look for images at; None for none.
        poll_credentials: see `to_credentials`.
        poll_seconds: between two looks.
        poll_days: of studies that are looked at, today and before.
        any_body_part: whether images of other body parts are answered, too.
        probability: what the probability is called in reports: code^scheme^meaning.
        max_bytes: of an object.
        associations: at once.
        free_bytes: that stay free on the disk of the spool.
        retry_seconds: longest wait before a result is sent again.
        refresh_seconds: between two looks at who the champion is.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", hide_input_in_errors=True)

    models: Path = Path("data/06_models")
    model: str | None = None
    spool: Path = Path("data/dicom_node")
    to: str
    to_tls: bool = False
    to_credentials: str | None = None
    ae_title: str = "BUSI_PIPELINE"
    host: str = "127.0.0.1"
    port: Annotated[int, Field(ge=0, le=65_535)] = 11_112
    allow: tuple[str, ...] = ()
    tls_certificate: Path | None = None
    tls_key: Path | None = None
    tls_ca: Path | None = None
    poll: str | None = None
    poll_credentials: str | None = None
    poll_seconds: Seconds = 60.0
    poll_days: Count = 2
    any_body_part: bool = False
    probability: str = PROBABILITY
    max_bytes: Count = 500_000_000
    associations: Count = 8
    free_bytes: Count = 2_000_000_000
    retry_seconds: Seconds = 300.0
    refresh_seconds: Seconds = 0.3


def make_node_settings(**given: Any) -> NodeSettings:
    """Return checked settings; raises BadInputError, one line, for the first that is wrong."""
    settings = check_settings(NodeSettings, given)
    for option, title in [("--ae-title", settings.ae_title)] + [
        ("--allow", title) for title in settings.allow
    ]:
        _check_title(option, title)
    if not settings.allow and not is_loopback(settings.host):
        raise BadInputError(
            f"--host {settings.host} can be reached from elsewhere, so name the AE titles that may "
            "send: --allow TITLE, once for each."
        )
    if (settings.tls_certificate is None) != (settings.tls_key is None):
        raise BadInputError("--tls-certificate and --tls-key go together: name both, or neither.")
    for option in ("tls_certificate", "tls_key", "tls_ca"):
        path = getattr(settings, option)
        if path is not None and not path.is_file():
            raise BadInputError(f"--{option.replace('_', '-')} {path}: there is no such file.")
    if (
        settings.tls_ca is not None
        and settings.tls_certificate is None
        and not _is_encrypted(settings)
    ):
        raise BadInputError(
            "--tls-ca alone encrypts nothing: the node listens with TLS by --tls-certificate and "
            "--tls-key, and sends with it by --to-tls or https://."
        )
    if not is_web(settings.to):
        parse_store_address(settings.to)
    if settings.to_tls and is_web(settings.to):
        raise BadInputError("--to-tls is for C-STORE: a DICOMweb service has TLS by https://.")
    for option, address, credentials in (
        ("--to", settings.to, settings.to_credentials),
        ("--poll", settings.poll, settings.poll_credentials),
    ):
        _check_web(option, address, credentials)
    if not _CODE.fullmatch(settings.probability):
        raise BadInputError(
            f"--probability must be code^scheme^meaning, such as {PROBABILITY}; got "
            f"{settings.probability!r}"
        )
    return settings


def _is_encrypted(settings: NodeSettings) -> bool:
    """Return whether the node connects to any archive over TLS."""
    addresses = (settings.to, settings.poll or "")
    return settings.to_tls or any(own.startswith("https://") for own in addresses)


def is_web(address: str) -> bool:
    """Return whether an address is one of a DICOMweb service."""
    return address.startswith(("http://", "https://"))


def parse_store_address(text: str) -> StoreAddress:
    """Return the parts of `AET@host:port`; raises BadInputError, one line."""
    found = _STORE.fullmatch(text)
    if found is None or not 0 < int(found[3]) <= 65_535:
        raise BadInputError(
            f"--to must be AET@host:port, or the http:// or https:// address of a DICOMweb "
            f"service; got {text!r}"
        )
    _check_title("--to", found[1])
    return StoreAddress(found[1], found[2].strip("[]"), int(found[3]))


def _check_title(option: str, title: str) -> None:
    if not 0 < len(title.strip()) <= 16 or not set(title) <= _TITLE_CHARACTERS:
        raise BadInputError(
            f"{option}: an AE title has 1 to 16 ASCII characters and no backslash; got {title!r}"
        )


def _check_web(option: str, address: str | None, credentials: str | None) -> None:
    if address is None or (option == "--to" and not is_web(address)):
        if credentials is not None:
            raise BadInputError(f"credentials are given for {option}, but no DICOMweb address.")
        return
    found = _WEB.fullmatch(address)
    if found is None:
        raise BadInputError(
            f"{option} must be the http:// or https:// address of a DICOMweb service, without name "
            f"and password; got another text"
        )
    if credentials is None:
        return
    if ":" not in credentials and not credentials.startswith("Bearer "):
        raise BadInputError(f"credentials of {option} must be `name:password` or `Bearer token`.")
    if found[1] == "http" and not is_loopback(found[2].strip("[]")):
        raise BadInputError(
            f"{option} {address} would send the credentials unencrypted: use https://."
        )
