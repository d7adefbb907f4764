"""UIDs that say where an object comes from: the same image and model give the same UIDs.

So an object that is made or sent twice is one object to an archive.
"""

import hashlib
import uuid

_NAMESPACE = uuid.UUID("6f0a3a53-0c2e-5c55-9b0b-3c5b0f6d8a27")
_NAME_LENGTH, _SHOWN_LENGTH = 32, 12


def derive_uid(*parts: str) -> str:
    """Return a UID of texts, as PS3.5, B.2 makes one of a UUID (version 5)."""
    return f"2.25.{uuid.uuid5(_NAMESPACE, chr(0).join(parts)).int}"


def name_image(sop_instance_uid: str) -> str:
    """Return what an image is called on disk: a hash, since its UID identifies a patient."""
    return hashlib.sha256(sop_instance_uid.encode("ascii", "replace")).hexdigest()[:_NAME_LENGTH]


def shorten(name: str) -> str:
    """Return what of an image's name stands in the log."""
    return name[:_SHOWN_LENGTH]
