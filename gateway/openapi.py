"""One OpenAPI schema out of the services' four."""

from __future__ import annotations

import copy
import re
from collections import Counter
from collections.abc import Mapping
from typing import Any

from gateway.routes import SERVICES, find

Schema = dict[str, Any]
_REFERENCE = re.compile(r"#/components/(\w+)/([\w.-]+)")
_METHODS = frozenset({"get", "put", "post", "delete", "options", "head", "patch", "trace"})


def merge(schemas: Mapping[str, Schema]) -> Schema:
    """Return one schema for all ``schemas`` (service → its schema); what is missing is noted.

    Only what the route table serves is kept. A component name that two services use for different
    things gets the service's name in front, in both.
    """
    clashing = _clashing_names(schemas)
    merged: Schema = {
        "openapi": "3.0.3",
        "info": {
            "title": "Flash Sale",
            "version": _version(schemas),
            "description": _description(schemas),
        },
        "servers": [{"url": "/"}],
        "tags": [{"name": name} for name in SERVICES if name in schemas],
        "paths": {},
        "components": {},
    }
    for service, schema in schemas.items():
        renamed = _prefixed(schema, service, clashing)
        for path, item in renamed.get("paths", {}).items():
            if find(re.sub(r"\{\w+\}", "1", path)):
                merged["paths"][path] = _tagged(item, service)
        for kind, components in renamed.get("components", {}).items():
            merged["components"].setdefault(kind, {}).update(components)
    return merged


def _description(schemas: Mapping[str, Schema]) -> str:
    text = (
        "All services of the flash sale. Log in at `POST /api/auth/login` and press *Authorize* "
        "with the access token, or sign in at [/login](/login): the cookie works here too."
    )
    missing = [name for name in SERVICES if name not in schemas]
    if missing:
        text += f"\n\n**Left out, as they do not answer just now: {', '.join(missing)}.**"
    return text


def _version(schemas: Mapping[str, Schema]) -> str:
    return next((s["info"]["version"] for s in schemas.values() if "info" in s), "0")


def _clashing_names(schemas: Mapping[str, Schema]) -> set[tuple[str, str]]:
    """Return the (kind, name) of components that are not the same wherever they appear."""
    found: dict[tuple[str, str], list[Any]] = {}
    for schema in schemas.values():
        for kind, components in schema.get("components", {}).items():
            for name, component in components.items():
                found.setdefault((kind, name), []).append(component)
    shared = {key: versions for key, versions in found.items() if len(versions) > 1}
    clashing = {key for key, versions in shared.items() if any(v != versions[0] for v in versions)}
    # One that refers to a clashing one means different things as well, though it reads the same.
    while True:
        more = {
            key
            for key, versions in shared.items()
            if key not in clashing and clashing & set(_REFERENCE.findall(str(versions[0])))
        }
        if not more:
            return clashing
        clashing |= more


def _prefixed(schema: Schema, service: str, clashing: set[tuple[str, str]]) -> Schema:
    def new_name(kind: str, name: str) -> str:
        return f"{service.capitalize()}{name}" if (kind, name) in clashing else name

    def walk(node: Any) -> Any:
        if isinstance(node, dict):
            return {key: walk(value) for key, value in node.items()}
        if isinstance(node, list):
            return [walk(value) for value in node]
        if isinstance(node, str) and (match := _REFERENCE.fullmatch(node)):
            kind, name = match.groups()
            return f"#/components/{kind}/{new_name(kind, name)}"
        return node

    renamed: Schema = walk(copy.deepcopy(schema))
    renamed["components"] = {
        kind: {new_name(kind, name): component for name, component in components.items()}
        for kind, components in renamed.get("components", {}).items()
    }
    return renamed


def _tagged(item: Schema, service: str) -> Schema:
    for method, operation in item.items():
        if method in _METHODS:
            operation["tags"] = [service]
            operation_id = operation.get("operationId", method)
            operation["operationId"] = f"{service}_{operation_id.removeprefix(service + '_')}"
    return item


def operation_ids(schema: Schema) -> Counter[str]:
    """Count the operation ids of a schema; each must appear once."""
    return Counter(
        operation["operationId"]
        for item in schema["paths"].values()
        for method, operation in item.items()
        if method in _METHODS
    )
