"""The merged schema: everything public of every service, no clash, and what is away named."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from typing import Any

import pytest
from django.test import Client

from gateway import docs
from gateway.openapi import merge, operation_ids
from tests.gateway.edge import free_port


def schema(path: str, component: dict[str, Any], **more: Any) -> dict[str, Any]:
    return {
        "openapi": "3.0.3",
        "info": {"title": "one", "version": "0.1.0"},
        "paths": {
            path: {
                "get": {
                    "operationId": "list",
                    "tags": ["api"],
                    "responses": {
                        "200": {
                            "content": {
                                "application/json": {
                                    "schema": {"$ref": "#/components/schemas/Ticket"}
                                }
                            }
                        }
                    },
                }
            }
        },
        "components": {"schemas": {"Ticket": component, **more}},
    }


NUMBER, TEXT = {"type": "integer"}, {"type": "string"}


def reference(merged: dict[str, Any], path: str) -> str:
    content = merged["paths"][path]["get"]["responses"]["200"]["content"]
    return str(content["application/json"]["schema"]["$ref"]).rpartition("/")[2]


def test_two_meanings_of_a_name_get_two_names() -> None:
    merged = merge(
        {
            "catalog": schema("/api/catalog/events", NUMBER),
            "order": schema("/api/orders", TEXT),
        }
    )
    assert merged["components"]["schemas"] == {"CatalogTicket": NUMBER, "OrderTicket": TEXT}
    assert reference(merged, "/api/catalog/events") == "CatalogTicket"
    assert reference(merged, "/api/orders") == "OrderTicket"


def test_what_reads_alike_but_refers_to_a_clash_is_two_things_as_well() -> None:
    refers = {"type": "array", "items": {"$ref": "#/components/schemas/Ticket"}}
    merged = merge(
        {
            "catalog": schema("/api/catalog/events", NUMBER, Page=refers),
            "order": schema("/api/orders", TEXT, Page=refers),
        }
    )
    pages = {name for name in merged["components"]["schemas"] if "Page" in name}
    assert pages == {"CatalogPage", "OrderPage"}


def test_a_shared_component_keeps_its_name() -> None:
    merged = merge(
        {
            "catalog": schema("/api/catalog/events", NUMBER),
            "order": schema("/api/orders", NUMBER),
        }
    )
    assert merged["components"]["schemas"] == {"Ticket": NUMBER}


def test_operations_are_unique_and_grouped_by_service() -> None:
    merged = merge(
        {
            "catalog": schema("/api/catalog/events/{id}", NUMBER),
            "order": schema("/api/orders", NUMBER),
        }
    )
    assert set(operation_ids(merged).values()) == {1}
    assert merged["paths"]["/api/orders"]["get"]["tags"] == ["order"]


def test_what_is_not_public_is_left_out() -> None:
    assert merge({"inventory": schema("/internal/inventory/holds", NUMBER)})["paths"] == {}


def test_a_missing_service_is_named() -> None:
    description = merge({"order": schema("/api/orders", NUMBER)})["info"]["description"]
    assert "auth, catalog, inventory" in description


@pytest.fixture
def services_down(settings: Any) -> Iterator[None]:
    for name in ("AUTH", "CATALOG", "INVENTORY", "ORDER"):
        setattr(settings, f"{name}_URL", f"http://127.0.0.1:{free_port()}")
    docs._merged = docs._MergedSchema()
    yield
    docs._merged = docs._MergedSchema()


@pytest.mark.usefixtures("services_down")
def test_with_all_services_down_there_is_still_a_schema() -> None:
    answer = Client().get("/api/openapi.json")
    assert answer.status_code == 200
    assert answer.json()["paths"] == {}


def test_the_documentation_page_loads_nothing_from_elsewhere() -> None:
    page = Client().get("/api/docs").content.decode()
    assert "swagger-ui-bundle.js" in page
    assert "//" not in page.replace("<!doctype html>", "").replace("http://", "")


@pytest.mark.usefixtures("services_down")
def test_a_service_that_hangs_takes_one_thread_not_all(monkeypatch: pytest.MonkeyPatch) -> None:
    schemas = docs._merged
    known = schemas.get()
    schemas._good_until = 0.0
    fetching, hanging = threading.Event(), threading.Event()

    def hang() -> dict[str, dict[str, Any]]:
        fetching.set()
        hanging.wait(10)
        return {}

    monkeypatch.setattr(docs, "_fetch_all", hang)
    fetcher = threading.Thread(target=schemas.get)
    fetcher.start()
    try:
        assert fetching.wait(5)
        assert schemas.get() is known, "answered from the old one while the new one is fetched"
    finally:
        hanging.set()
        fetcher.join(5)
