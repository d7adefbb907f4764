"""The part of the Open Inference Protocol (KServe V2) that clients need to ask about images.

https://github.com/kserve/open-inference-protocol, `inference_rest.md`.
"""

import base64
import binascii
import json
from typing import Any

from fastapi import APIRouter, Request
from fastapi.responses import JSONResponse
from pydantic import BaseModel, ConfigDict, Field, ValidationError
from starlette.concurrency import run_in_threadpool

from busi_pipeline import __version__
from busi_pipeline.models.packaged import Answer
from busi_pipeline.serving.problems import RequestError
from busi_pipeline.serving.service import Service
from busi_pipeline.serving.uploads import Upload

IMAGE, BOX = "image", "box"


class InputTensor(BaseModel):
    """`image`: base64 texts of image files; `box`: "left,top,right,bottom" texts, "" for none."""

    name: str
    shape: list[int]
    datatype: str
    data: list[Any]
    parameters: dict[str, Any] | None = None


class RequestedOutput(BaseModel):
    """An output that is asked for."""

    model_config = ConfigDict(extra="ignore")
    name: str


class InferenceRequest(BaseModel):
    """A request to infer."""

    id: str | None = Field(default=None, max_length=200)
    inputs: list[InputTensor]
    outputs: list[RequestedOutput] | None = None
    parameters: dict[str, Any] | None = None


def make_router(service: Service) -> APIRouter:
    """Return the routes under `/v2`."""
    router = APIRouter(prefix="/v2", tags=["Open Inference Protocol"])

    @router.get("/health/live", summary="Live")
    async def live() -> dict[str, bool]:
        return {"live": True}

    @router.get("/health/ready", summary="Ready")
    async def ready() -> dict[str, bool]:
        return {"ready": not service.models.problem}

    @router.get("", summary="Server")
    async def server() -> dict[str, Any]:
        return {"name": "busi_pipeline", "version": __version__, "extensions": []}

    @router.get("/models/{name}", summary="Model", responses=_NOT_FOUND)
    async def model(name: str) -> dict[str, Any]:
        own = _find(service, name)
        return {
            "name": own.name,
            "versions": [own.version],
            "platform": "onnxruntime",
            "inputs": [
                {"name": IMAGE, "datatype": "BYTES", "shape": [-1]},
                {"name": BOX, "datatype": "BYTES", "shape": [-1]},
            ],
            "outputs": [
                {"name": name, "datatype": kind, "shape": shape}
                for name, kind, shape in _list_outputs(len(own.description["classes"]))
            ],
        }

    @router.get("/models/{name}/ready", summary="Model ready", responses=_NOT_FOUND)
    async def model_ready(name: str) -> dict[str, Any]:
        return {"name": _find(service, name).name, "ready": not service.models.problem}

    @router.post(
        "/models/{name}/infer",
        summary="Infer",
        responses=_REFUSED,
        openapi_extra={"requestBody": _BODY},
    )
    async def infer(name: str, request: Request) -> JSONResponse:
        _find(service, name)
        asked = await _read_json(request, service.settings.max_files)
        done = await service.ask(_read(asked), request)
        for number, answer in enumerate(done.answers, 1):
            if not isinstance(answer, Answer):
                raise RequestError(422, f"image {number} cannot be used: {answer}")
        answers = [answer for answer in done.answers if isinstance(answer, Answer)]
        wanted = None if asked.outputs is None else [output.name for output in asked.outputs]
        content = {
            "model_name": done.model.name,
            "model_version": done.model.version,
            "outputs": _write(answers, wanted),
        }
        return JSONResponse(content | ({} if asked.id is None else {"id": asked.id}))

    return router


_MOST_BYTES = 30_000_000
_TENSOR: dict[str, Any] = {
    "type": "object",
    "required": ["name", "shape", "datatype", "data"],
    "properties": {
        "name": {"enum": [IMAGE, BOX]},
        "shape": {"type": "array", "items": {"type": "integer"}},
        "datatype": {"enum": ["BYTES"]},
        "data": {"type": "array", "items": {"type": "string"}},
    },
    "description": "`image`: base64 texts of files; `box`: left,top,right,bottom, or empty.",
}
_NAMED: dict[str, Any] = {
    "type": "object",
    "required": ["name"],
    "properties": {"name": {"type": "string"}},
}
_SCHEMA: dict[str, Any] = {
    "type": "object",
    "required": ["inputs"],
    "properties": {
        "id": {"type": "string", "maxLength": 200},
        "inputs": {"type": "array", "minItems": 1, "maxItems": 2, "items": _TENSOR},
        "outputs": {"type": "array", "items": _NAMED},
    },
}
_BODY: dict[str, Any] = {
    "required": True,
    "content": {"application/json": {"schema": _SCHEMA}},
}


async def _read_json(request: Request, most: int) -> InferenceRequest:
    """Return a request; raises RequestError where it has another form.

    What is too long is refused before each of its parts is looked at.
    """
    content = await request.body()
    if len(content) > _MOST_BYTES:
        raise RequestError(413, f"JSON may have {_MOST_BYTES} bytes; /v1/predictions takes more")
    try:
        asked = await run_in_threadpool(json.loads, content)
    except (ValueError, RecursionError):
        raise RequestError(400, "the body is no JSON") from None
    inputs = asked.get("inputs") if isinstance(asked, dict) else None
    if not isinstance(inputs, list) or len(inputs) > 2:
        raise RequestError(422, f"inputs are `{IMAGE}` and, where known, `{BOX}`, each once")
    data = [own.get("data") for own in inputs if isinstance(own, dict)]
    if any(not isinstance(own, list) or not 1 <= len(own) <= most for own in data):
        raise RequestError(422, f"a request has 1 to {most} images")
    try:
        return InferenceRequest.model_validate(asked)
    except ValidationError as error:
        first = error.errors()[0]
        place = ".".join(str(part) for part in first["loc"])
        raise RequestError(422, f"{place}: {first['msg']}") from None


_NOT_FOUND: dict[int | str, dict[str, Any]] = {404: {"description": "Another model answers."}}
_REFUSED = _NOT_FOUND | {
    400: {"description": "The body is no JSON."},
    408: {"description": "The body came too slowly."},
    413: {"description": "The body is too large."},
    422: {"description": "The request, or an image, cannot be used."},
    503: {"description": "Too many images are waiting."},
}


def _find(service: Service, name: str) -> Any:
    model = service.models.serving.model
    if name != model.name:
        raise RequestError(404, f"the model that answers is {model.name}")
    return model


def _list_outputs(classes: int) -> list[tuple[str, str, list[int]]]:
    return [
        ("flagged", "BOOL", [-1]),
        ("refer", "BOOL", [-1]),
        ("positive_score", "FP64", [-1]),
        ("probabilities", "FP64", [-1, classes]),
        ("answer", "BYTES", [-1]),
    ]


def _read(asked: InferenceRequest) -> list[Upload]:
    """Return the images of a request; raises RequestError where it has another form."""
    tensors = {tensor.name: tensor for tensor in asked.inputs}
    if IMAGE not in tensors or set(tensors) - {IMAGE, BOX} or len(tensors) != len(asked.inputs):
        raise RequestError(422, f"inputs are `{IMAGE}` and, where known, `{BOX}`, each once")
    count = len(tensors[IMAGE].data)
    for tensor in tensors.values():
        if tensor.datatype != "BYTES" or tensor.shape != [count] or len(tensor.data) != count:
            raise RequestError(
                422, f"`{tensor.name}` must have datatype BYTES, and shape [{count}], as its data"
            )
    boxes = tensors[BOX].data if BOX in tensors else [""] * count
    uploads = []
    for number, (text, box) in enumerate(zip(tensors[IMAGE].data, boxes, strict=True), 1):
        try:
            content = base64.b64decode(text, validate=True)
        except (binascii.Error, TypeError, ValueError):
            raise RequestError(422, f"image {number} is no base64 text of a file") from None
        if not isinstance(box, str):
            raise RequestError(422, f"box {number} must be left,top,right,bottom, or empty")
        uploads.append(Upload("", content, box.split(",") if box.strip() else None))
    return uploads


def _write(answers: list[Answer], wanted: list[str] | None) -> list[dict[str, Any]]:
    classes = list(answers[0].probabilities)
    values: dict[str, list[Any]] = {
        "flagged": [answer.flagged for answer in answers],
        "refer": [answer.refer for answer in answers],
        "positive_score": [answer.positive_score for answer in answers],
        "probabilities": [p for answer in answers for p in answer.probabilities.values()],
        "answer": [json.dumps(answer.as_record()) for answer in answers],
    }
    known = {name: (kind, shape) for name, kind, shape in _list_outputs(len(classes))}
    if unknown := [name for name in wanted or [] if name not in known]:
        raise RequestError(422, f"outputs are {', '.join(known)}; got {unknown[0]!r}")
    return [
        {
            "name": name,
            "datatype": known[name][0],
            "shape": [len(answers), *known[name][1][1:]],
            "data": values[name],
        }
        for name in (known if wanted is None else wanted)
    ]
