"""Requests and answers of the API: who may ask, what was asked, and how a refusal is said (RFC 9457)."""

import re
from collections.abc import Awaitable, Callable, Mapping
from http import HTTPStatus
from typing import Any, TypeVar

import msgspec
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import Response

from telemetry.errors import ConfigError
from tocsin.api import models
from tocsin.api.access import Access, token_of

T = TypeVar("T")
BODY_BYTES_MAX = 512 * 1024
Handler = Callable[[Request], Awaitable[Response]]


def guarded(handler: Handler, access: Access) -> Handler:
    """Return a handler that only answers who has access."""

    async def enter(request: Request) -> Response:
        picture = request.url.path.endswith(".svg")
        given = token_of(request.headers.get("authorization", ""), basic=picture)
        if access.allows(request.url.hostname or "", given):
            return await handler(request)
        return problem(
            HTTPStatus.UNAUTHORIZED,
            "send `Authorization: Bearer TOKEN` with a token of api.token_file"
            if access.tokens
            else "without api.token_file only http://127.0.0.1 and localhost are answered",
            # A picture is opened from a ticket by a browser, which asks its user: the token is the password.
            {"WWW-Authenticate": 'Basic realm="Tocsin"' if picture else "Bearer"},
        )

    return enter


def problem(status: HTTPStatus, detail: str, headers: Mapping[str, str] | None = None) -> Response:
    """Return a problem document."""
    body = models.Problem(title=status.phrase, status=status.value, detail=detail)
    return Response(
        msgspec.json.encode(body), status.value, headers, media_type="application/problem+json"
    )


def problem_of(status: HTTPStatus) -> Callable[[Request, Exception], Awaitable[Response]]:
    """Return a handler that says errors with this status."""

    async def answer(request: Request, error: Exception) -> Response:
        del request
        if status is HTTPStatus.INTERNAL_SERVER_ERROR:
            return problem(status, "an error of Tocsin itself; the desk's log has it")
        return problem(status, str(error))

    return answer


async def problem_of_http(request: Request, error: Exception) -> Response:
    """Say an error that has a status of its own."""
    assert isinstance(error, HTTPException)
    detail = error.detail
    if error.status_code == HTTPStatus.NOT_FOUND and detail == HTTPStatus.NOT_FOUND.phrase:
        detail = f"there is no {request.url.path}; /api/v1/openapi.json lists what there is"
    return problem(HTTPStatus(error.status_code), detail, error.headers)


async def body_of(request: Request, kind: type[T]) -> T:
    """Read a bounded JSON body as a struct."""
    body = bytearray()
    async for chunk in request.stream():
        body += chunk
        if len(body) > BODY_BYTES_MAX:
            raise HTTPException(HTTPStatus.REQUEST_ENTITY_TOO_LARGE, "the body is too long")
    try:
        return msgspec.json.decode(bytes(body), type=kind)
    except RecursionError as error:
        raise ConfigError("the body is nested too deep") from error


def id_of(request: Request) -> str:
    """Return the id in the path: 16 hex digits."""
    name = str(request.path_params["id"])
    if not re.fullmatch(r"[0-9a-f]{16}", name):
        raise HTTPException(HTTPStatus.BAD_REQUEST, "an id is 16 hex digits")
    return name


def asked(request: Request, kind: type[T]) -> T:
    """Read the query parameters as a struct; one that is not known is refused."""
    known = {field.encode_name for field in msgspec.structs.fields(kind)}  # type: ignore[arg-type]
    for name in request.query_params:
        if name not in known:
            listed = ", ".join(sorted(known))
            raise ConfigError(f"parameter {name[:40]!r} is not known here; known: {listed}")
    return msgspec.convert(dict(request.query_params), kind, strict=False)


def json_answer(answer: Any) -> Response:
    """Return a struct as JSON."""
    return Response(msgspec.json.encode(answer), media_type="application/json")
