"""The OpenAPI document, generated from the structs and the table of operations."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

import msgspec

from tocsin import __version__
from tocsin.api.models import Problem


@dataclass(frozen=True, slots=True)
class Operation:
    """One thing the API does."""

    path: str
    method: Literal["get", "post"]
    name: str  # of the handler, and operationId
    summary: str
    answer: type | str  # a struct, or a media type where it is no JSON of ours
    ask: type | None = None  # query parameters of a get, JSON body of a post
    open: bool = False  # answered without a token: what probes need


def document(operations: Sequence[Operation]) -> dict[str, Any]:
    """Return the OpenAPI 3.1 document of these operations."""
    structs = [op.answer for op in operations if isinstance(op.answer, type)]
    asks = [op.ask for op in operations if op.ask is not None]
    kinds = list(dict.fromkeys([*structs, *asks, Problem]))
    references, schemas = msgspec.json.schema_components(
        kinds, ref_template="#/components/schemas/{name}"
    )
    reference = dict(zip(kinds, references, strict=True))
    problem = {
        "description": "what is wrong, in one sentence (RFC 9457)",
        "content": {"application/problem+json": {"schema": reference[Problem]}},
    }
    paths: dict[str, Any] = {}
    for op in operations:
        content = (
            {"application/json": {"schema": reference[op.answer]}}
            if isinstance(op.answer, type)
            else {op.answer: {}}
        )
        described: dict[str, Any] = {
            "operationId": op.name,
            "summary": op.summary,
            "responses": {
                "200": {"description": "the answer", "content": content},
                "default": problem,
            },
        }
        if op.open:
            described["security"] = []
        parameters = [
            {"name": name, "in": "path", "required": True, "schema": {"type": "string"}}
            for name in _names_in(op.path)
        ]
        if op.ask is not None and op.method == "get":
            described_ask = schemas[op.ask.__name__]
            for name, schema in described_ask["properties"].items():
                parameters.append(
                    {
                        "name": name,
                        "in": "query",
                        "required": name in described_ask.get("required", ()),
                        "schema": schema,
                    }
                )
        if parameters:
            described["parameters"] = parameters
        if op.ask is not None and op.method == "post":
            described["requestBody"] = {
                "required": True,
                "content": {"application/json": {"schema": reference[op.ask]}},
            }
        paths.setdefault(op.path, {})[op.method] = described
    only_parameters = {
        op.ask.__name__
        for op in operations
        if op.ask and not any(o.ask is op.ask and o.method == "post" for o in operations)
    }
    return {
        "openapi": "3.1.0",
        "info": {
            "title": "Tocsin",
            "version": __version__,
            "description": "Alarms, series and status of one Tocsin. Times are ns since 1970 UTC "
            "where a name ends in _ns, s where it ends in _s.",
        },
        "paths": paths,
        "components": {
            "schemas": {
                name: schema
                for name, schema in sorted(schemas.items())
                if name not in only_parameters
            },
            "securitySchemes": {"token": {"type": "http", "scheme": "bearer"}},
        },
        "security": [{"token": []}, {}],
    }


def _names_in(path: str) -> list[str]:
    return [part[1:-1] for part in path.split("/") if part.startswith("{")]
