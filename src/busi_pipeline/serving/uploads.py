"""What a request sends: files, and readers' boxes."""

import re
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from typing import NamedTuple

from fastapi import Request
from starlette.datastructures import FormData, UploadFile
from starlette.exceptions import HTTPException
from starlette.formparsers import MultiPartException

from busi_pipeline.serving.problems import RequestError

_LONGEST_NAME, _LONGEST_FIELD = 200, 10_000
_NOT_PRINTED = re.compile(
    r"[\x00-\x1f\x7f-\x9f\u2028\u2029\u202a-\u202e\u2066-\u2069\ud800-\udfff]"
)


class Upload(NamedTuple):
    """Attributes: `name` of the file, `content`, and the reader's `box`, four texts, or None."""

    name: str
    content: bytes
    box: Sequence[str] | None


async def read_uploads(request: Request, most: int) -> list[Upload]:
    """Return the files of a multipart request.

    Args:
        request: with parts `files`, and as many parts `box` ("left,top,right,bottom" or "") or
            none.
        most: files that there may be.

    Raises RequestError where there are none, or too many, or other parts.
    """
    kind = request.headers.get("content-type", "").partition(";")[0].strip().lower()
    if kind != "multipart/form-data":
        raise RequestError(415, "send multipart/form-data with the images as parts named `files`")
    async with open_form(request, most, most, _LONGEST_FIELD) as form:
        files, boxes = form.getlist("files"), form.getlist("box")
        if other := sorted(set(form) - {"files", "box"}):
            raise RequestError(
                422, f"parts are `files` and `box`; got {clean_name(', '.join(other))}"
            )
        if not files or not all(isinstance(file, UploadFile) for file in files):
            raise RequestError(422, "send at least one file, as a part named `files`")
        if (boxes and len(boxes) != len(files)) or not all(isinstance(b, str) for b in boxes):
            raise RequestError(
                422, "send a `box` for each file, in their order, empty where there is none"
            )
        return [
            Upload(
                clean_name(file.filename or ""),
                await file.read(),
                box.split(",") if box.strip() else None,
            )
            for file, box in zip(files, boxes or [""] * len(files), strict=True)
            if isinstance(file, UploadFile) and isinstance(box, str)
        ]


@asynccontextmanager
async def open_form(
    request: Request, most_files: int, most_fields: int, longest_field: int
) -> AsyncIterator[FormData]:
    """Yield the fields of a form, and close its files; raises RequestError where it is damaged.

    Args:
        request: that brings it.
        most_files, most_fields: that there may be.
        longest_field: bytes of a field that is no file.
    """
    try:
        form = await request.form(
            max_files=most_files, max_fields=most_fields, max_part_size=longest_field
        )
    except (MultiPartException, HTTPException, KeyError, UnicodeDecodeError, ValueError) as error:
        detail = getattr(error, "detail", None) or getattr(error, "message", None)
        raise RequestError(400, str(detail or "the body is no multipart/form-data")) from None
    try:
        yield form
    finally:
        await form.close()


def clean_name(name: str) -> str:
    """Return the last part of a file's name, without what is not printed."""
    return clean_text(name.replace("\\", "/").rsplit("/", 1)[-1])[:_LONGEST_NAME]


def clean_text(text: str) -> str:
    """Return a text without what is not printed."""
    return _NOT_PRINTED.sub("_", text)
