"""Errors of requests, each one line, as RFC 9457 `application/problem+json`."""

from http import HTTPStatus

from fastapi.responses import JSONResponse

from busi_pipeline.serving.schemas import Problem

MEDIA_TYPE = "application/problem+json"


class RequestError(Exception):
    """A request that is not answered; attributes: `status`, `detail`, `headers`."""

    def __init__(self, status: int, detail: str, headers: dict[str, str] | None = None):
        """Take what is answered instead."""
        super().__init__(detail)
        self.status, self.detail, self.headers = status, detail, headers


def describe_problem(
    status: int, detail: str, request_id: str, headers: dict[str, str] | None = None
) -> JSONResponse:
    """Return the answer to a request that is refused."""
    problem = Problem(
        title=HTTPStatus(status).phrase, status=status, detail=detail, request_id=request_id
    )
    return JSONResponse(problem.model_dump(), status, headers, MEDIA_TYPE)
