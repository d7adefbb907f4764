"""TLS on both sides, by the same files."""

import ssl

from busi_pipeline.errors import BadInputError
from busi_pipeline.pacs.settings import NodeSettings


def make_server_context(settings: NodeSettings) -> ssl.SSLContext | None:
    """Return what listens with TLS; None without a certificate.

    With `tls_ca`, whoever connects must have a certificate of it. Raises BadInputError, one line.
    """
    if settings.tls_certificate is None:
        return None
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    _load(context, settings)
    if settings.tls_ca is not None:
        context.verify_mode = ssl.CERT_REQUIRED
    return context


def make_client_context(settings: NodeSettings) -> ssl.SSLContext | None:
    """Return what sends with TLS; None where `to_tls` is not set.

    The archive's certificate must be of `tls_ca`, or of the machine's authorities without one, and
    name its host. Raises BadInputError, one line.
    """
    if not settings.to_tls:
        return None
    context = ssl.create_default_context()
    if settings.tls_ca is not None:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    _load(context, settings)
    return context


def _load(context: ssl.SSLContext, settings: NodeSettings) -> None:
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    try:
        if settings.tls_certificate is not None and settings.tls_key is not None:
            # Without a passphrase: nobody is there to type it.
            context.load_cert_chain(settings.tls_certificate, settings.tls_key, lambda: "")
        if settings.tls_ca is not None:
            context.load_verify_locations(settings.tls_ca)
    except (OSError, ValueError) as error:
        raise BadInputError(
            "--tls-certificate, --tls-key and --tls-ca must be PEM files that belong together, the "
            f"key without a passphrase: {getattr(error, 'reason', None) or 'they cannot be read'}."
        ) from None
