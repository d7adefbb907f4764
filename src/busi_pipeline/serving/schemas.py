"""What the service answers, as its OpenAPI document says it."""

from typing import Any

from pydantic import BaseModel, Field

from busi_pipeline.models.packaged import REASONS, SCHEMA_VERSION


class Quality(BaseModel):
    """How much there is to see in an image; see imaging.quality."""

    shorter_side: float
    contrast: float
    detail: float
    colour: float
    brightness: float


class Case(BaseModel):
    """An image learned from that is like the one asked about."""

    image_id: str
    label: str
    similarity: float


class Prediction(BaseModel):
    """The answer on one image; see models.packaged.Answer. With an `error`, all else is null."""

    file: str = Field(description="Name of the file, as it was sent.")
    error: str | None = Field(description="Why the image cannot be used; null where it can.")
    flagged: bool | None = Field(default=None, description="Whether it is flagged for review.")
    refer: bool | None = Field(
        default=None, description="Whether a reader must look for another reason."
    )
    reasons: list[str] | None = Field(default=None, description=f"Codes: {', '.join(REASONS)}.")
    positive_score: float | None = None
    threshold: float | None = None
    expected_sensitivity: float | None = None
    probabilities: dict[str, float] | None = None
    box: list[float] | None = Field(
        default=None, description="left, top, right, bottom, in pixels."
    )
    box_source: str | None = Field(default=None, description="reader or localizer")
    confidence: float | None = None
    distance: float | None = None
    similarity: float | None = None
    quality: Quality | None = None
    width: int | None = None
    height: int | None = None
    model: str | None = None
    model_version: str | None = None
    similar: list[Case] | None = None
    schema_version: int = SCHEMA_VERSION


class Predictions(BaseModel):
    """The answers on the images of a request, in their order."""

    request_id: str
    model: str
    model_version: str
    predictions: list[Prediction]


class ModelInformation(BaseModel):
    """What is known of the model that answers."""

    name: str
    title: str
    version: str
    schema_version: int
    classes: list[str]
    positive_classes: list[str]
    threshold: float
    expected_sensitivity: float
    roles: dict[str, str] = Field(description="The version of the model in each role.")
    description: dict[str, Any] = Field(description="Its package.json.")
    card: str = Field(description="The model card, Markdown.")


class Problem(BaseModel):
    """What is wrong with a request, as RFC 9457 has it."""

    type: str = "about:blank"
    title: str
    status: int
    detail: str
    request_id: str
