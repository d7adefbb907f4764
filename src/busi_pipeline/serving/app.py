"""The HTTP service: images in, answers out."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse, Response
from prometheus_client import CONTENT_TYPE_LATEST
from starlette.exceptions import HTTPException

from busi_pipeline import __version__
from busi_pipeline.models.packaged import SCHEMA_VERSION, Answer
from busi_pipeline.serving.open_inference import make_router
from busi_pipeline.serving.page.routes import Page
from busi_pipeline.serving.problems import MEDIA_TYPE, RequestError, describe_problem
from busi_pipeline.serving.protection import PAGE_PATH, Protection
from busi_pipeline.serving.schemas import ModelInformation, Prediction, Predictions, Problem
from busi_pipeline.serving.service import Service
from busi_pipeline.serving.uploads import read_uploads

_EXAMPLE: dict[str, Any] = {
    "request_id": "5f0c1c3f0a5d4f5c8c0d2b6d7a1e9b42",
    "model": "lesion_ensemble",
    "model_version": "3fa2c1d09b77",
    "predictions": [
        {
            "file": "scan.png",
            "error": None,
            "flagged": True,
            "refer": True,
            "reasons": ["near_threshold"],
            "positive_score": 0.0734,
            "threshold": 0.0495,
            "expected_sensitivity": 0.968,
            "probabilities": {"benign": 0.8982, "malignant": 0.0734, "normal": 0.0284},
            "box": [120.0, 80.0, 260.0, 190.0],
            "box_source": "localizer",
            "confidence": 0.97,
            "distance": 0.31,
            "similarity": 0.62,
            "quality": {
                "shorter_side": 471.0,
                "contrast": 187.0,
                "detail": 0.06,
                "colour": 0.0,
                "brightness": 83.2,
            },
            "width": 562,
            "height": 471,
            "model": "lesion_ensemble",
            "model_version": "3fa2c1d09b77",
            "similar": [],
            "schema_version": SCHEMA_VERSION,
        }
    ],
}
_FILES: dict[str, Any] = {
    "type": "array",
    "minItems": 1,
    "items": {"type": "string", "format": "binary"},
    "description": "PNG, JPEG, BMP, TIFF or DICOM files.",
}
_BOXES: dict[str, Any] = {
    "type": "array",
    "items": {"type": "string", "examples": ["120,80,260,190"]},
    "description": "Of each file the lesion, as a reader sees it: left,top,right,bottom in pixels; "
    "empty for none.",
}


def _describe_body(most: int) -> dict[str, Any]:
    """Return what OpenAPI says of a body that is read by hand."""
    files = _FILES | {"maxItems": most}
    schema = {
        "type": "object",
        "required": ["files"],
        "properties": {"files": files, "box": _BOXES},
        "additionalProperties": False,
    }
    return {
        "requestBody": {"required": True, "content": {"multipart/form-data": {"schema": schema}}}
    }


def _list_refusals(*statuses: int) -> dict[int | str, dict[str, Any]]:
    texts = {
        400: "The body is no multipart/form-data.",
        401: "The key is missing or wrong.",
        408: "The body came too slowly.",
        413: "The body is too large.",
        415: "The body is of another kind.",
        422: "The request, or every image, cannot be used.",
        503: "Too many images are waiting; Retry-After says for how long.",
    }
    schema = {MEDIA_TYPE: {"schema": Problem.model_json_schema()}}
    return {status: {"description": texts[status], "content": schema} for status in statuses}


def create_app(service: Service) -> FastAPI:
    """Return the application around a service, which it closes at its end."""
    settings = service.settings

    @asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[None]:
        service.start()
        yield
        service.close()

    app = FastAPI(
        title="busi_pipeline",
        version=__version__,
        summary="A second look at breast ultrasound images. No diagnosis.",
        lifespan=lifespan,
        # Their pages load scripts from elsewhere.
        docs_url=None,
        redoc_url=None,
        # It would name whatever host the client named.
        redirect_slashes=False,
        responses=_list_refusals(401),
    )
    app.add_middleware(Protection, settings=settings, measures=service.measures)
    app.include_router(make_router(service))
    page = Page(service) if settings.page else None
    if page is not None:
        page.add_to(app)
    sent = (400, 408, 413, 415, 422, 503)

    @app.exception_handler(RequestError)
    async def refuse(request: Request, error: RequestError) -> Response:
        if page is not None and request.url.path.startswith(PAGE_PATH):
            return page.describe_problem(request, error)
        return describe_problem(error.status, error.detail, request.state.request_id, error.headers)

    @app.exception_handler(HTTPException)
    async def refuse_route(request: Request, error: HTTPException) -> Response:
        headers = dict(error.headers or {})
        return await refuse(request, RequestError(error.status_code, str(error.detail), headers))

    @app.exception_handler(RequestValidationError)
    async def refuse_values(request: Request, error: RequestValidationError) -> JSONResponse:
        first = error.errors()[0]
        place = ".".join(str(part) for part in first["loc"])
        return describe_problem(422, f"{place}: {first['msg']}", request.state.request_id)

    @app.post(
        "/v1/predictions",
        tags=["images"],
        summary="Ask about images",
        response_model=Predictions,
        responses={
            200: {"content": {"application/json": {"example": _EXAMPLE}}},
            **_list_refusals(*sent),
        },
        openapi_extra=_describe_body(settings.max_files),
    )
    async def predict(request: Request) -> Any:
        """Answer on each image, in their order.

        An image that cannot be used has an `error`, and the others their answers. Where none can
        be used, the status is 422.
        """
        uploads = await read_uploads(request, settings.max_files)
        done = await service.ask(uploads, request)
        if not any(isinstance(answer, Answer) for answer in done.answers):
            raise RequestError(
                422, "; ".join(dict.fromkeys(str(answer) for answer in done.answers))
            )
        return Predictions(
            request_id=request.state.request_id,
            model=done.model.name,
            model_version=done.model.version,
            predictions=[
                Prediction(file=upload.name, error=None, **answer.as_record())
                if isinstance(answer, Answer)
                else Prediction(file=upload.name, error=str(answer))
                for upload, answer in zip(uploads, done.answers, strict=True)
            ],
        )

    @app.post(
        "/v1/overlays",
        tags=["images"],
        summary="Draw what the model looked at",
        response_class=Response,
        responses={
            200: {
                "content": {"image/png": {"schema": {"type": "string", "format": "binary"}}},
                "description": "The image with the box, and what speaks for and against.",
            },
            **_list_refusals(*sent),
        },
        openapi_extra=_describe_body(1),
    )
    async def draw(request: Request, attribution: bool = True) -> Response:
        """Draw the box of the lesion, and in red and blue what speaks for and against.

        The image is shown whole, with burned-in text. `attribution=false` draws the box alone.
        """
        (upload,) = await read_uploads(request, 1)
        return Response(await service.draw(upload, attribution, request), media_type="image/png")

    @app.get("/v1/model", tags=["model"], summary="The model that answers")
    async def describe_model() -> ModelInformation:
        serving = service.models.serving
        model, described = serving.model, serving.model.description
        return ModelInformation(
            name=model.name,
            title=described["title"],
            version=model.version,
            schema_version=described["schema_version"],
            classes=described["classes"],
            positive_classes=described["positive_classes"],
            threshold=described["threshold"],
            expected_sensitivity=described["expected_sensitivity"],
            roles={role: own.version for role, own in serving.roles.items()},
            description=described,
            card=model.card,
        )

    @app.get("/healthz", tags=["health"], summary="Whether the service lives")
    async def live() -> dict[str, str]:
        return {"status": "alive"}

    @app.get(
        "/readyz",
        tags=["health"],
        summary="Whether it answers",
        responses={503: {"description": "The model that answers is not the one it should be."}},
    )
    async def ready() -> Any:
        """Say which model answers; 503 where the ledger names another one that cannot be loaded."""
        version, problem = service.models.serving.model.version, service.models.problem
        if problem:
            return JSONResponse({"status": "other model", "model_version": version}, 503)
        return {"status": "ready", "model_version": version}

    @app.get(
        "/metrics", tags=["health"], summary="Counters, for Prometheus", response_class=Response
    )
    async def measure() -> Response:
        model = service.models.serving.model
        content = service.measures.write(service.work.pending, model.name, model.version)
        return Response(content, media_type=CONTENT_TYPE_LATEST)

    return app
