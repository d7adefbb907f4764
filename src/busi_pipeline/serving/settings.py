"""What a service may be asked, by whom, and how much of it at once."""

import ipaddress
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, TypeVar

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from busi_pipeline.errors import BadInputError

SHORTEST_KEY = 16
Count = Annotated[int, Field(ge=1)]
Seconds = Annotated[float, Field(gt=0)]
_Settings = TypeVar("_Settings", bound=BaseModel)


class ServiceSettings(BaseModel):
    """Settings of the service.

    Attributes:
        models: folder of the packaged models, such as `data/06_models`.
        model: an experiment, a role, a version or a folder; None for the champion, or the only one.
        host, port: to listen at.
        api_key: that every request must bring; None for none, on loopback only.
        max_bytes: of the body of a request.
        max_held: bytes of all bodies together that are held at once.
        max_files: of a request.
        waiting: images that may wait for an answer; more are turned away.
        threads: images that are computed at once; they share one model's memory.
        header_seconds: in which the headers of a request must have come.
        body_seconds: in which its body must have come.
        answer_seconds: in which an image must have been computed, waiting included.
        refresh_seconds: between two looks at who the champion is.
        shadow: file of the comparisons of a challenger with the champion; None for none.
        page: whether there is the page of a second reader.
        worklist: folder of images that wait for a reader; None for none.
        readings: file of what readers say; None for 07_model_output/readings.jsonl beside `models`.
        truth: CSV file with `byte_sha256` and `label` of images that readers read; None for none.
        results: whether readers see the table of readers, and all that is on record.
        prevalence: share of positive images where the page is used, until a reader enters another.
        session_minutes: after which a reader who does nothing is signed out.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    models: Path = Path("data/06_models")
    model: str | None = None
    host: str = "127.0.0.1"
    port: Annotated[int, Field(ge=0, le=65_535)] = 8000
    api_key: str | None = None
    max_bytes: Count = 100_000_000
    max_held: Count = 1_000_000_000
    max_files: Count = 32
    waiting: Count = 64
    threads: Count = 1
    header_seconds: Seconds = 10.0
    body_seconds: Seconds = 30.0
    answer_seconds: Seconds = 60.0
    refresh_seconds: Seconds = 0.3
    shadow: Path | None = None
    page: bool = True
    worklist: Path | None = None
    readings: Path | None = None
    truth: Path | None = None
    results: bool = False
    prevalence: Annotated[float, Field(gt=0, lt=1)] = 0.05
    session_minutes: Annotated[float, Field(gt=0)] = 60.0

    def find_readings(self) -> Path:
        """Return the file of what readers say."""
        beside = self.models.resolve().parent / "07_model_output" / "readings.jsonl"
        return beside if self.readings is None else self.readings


def check_settings(schema: type[_Settings], given: Mapping[str, object]) -> _Settings:
    """Return settings of a schema; raises BadInputError, one line, for the first that is wrong.

    What was given for credentials is not said.
    """
    try:
        return schema.model_validate(given)
    except ValidationError as error:
        first = error.errors()[0]
        name = ".".join(str(part) for part in first["loc"])
        shown = "" if name.endswith("credentials") else f"; got {first['input']!r}"
        raise BadInputError(f"{name}: {first['msg']}{shown}") from None


def make_settings(**given: object) -> ServiceSettings:
    """Return checked settings; raises BadInputError, one line, for the first that is wrong."""
    settings = check_settings(ServiceSettings, given)
    key = settings.api_key
    if key is None and not is_loopback(settings.host):
        raise BadInputError(
            f"--host {settings.host} can be reached from elsewhere, so it needs a key: put one of "
            f"{SHORTEST_KEY} characters or more into the environment variable BUSI_SERVE_API_KEY."
        )
    if key is not None and not re.fullmatch(rf"[!-~]{{{SHORTEST_KEY},}}", key):
        raise BadInputError(
            f"BUSI_SERVE_API_KEY must have {SHORTEST_KEY} printable ASCII characters or more, and "
            "no spaces."
        )
    return settings


def is_loopback(host: str) -> bool:
    """Return whether a host can be reached from this machine alone."""
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False
