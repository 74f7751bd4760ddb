"""One login for every service's admin: what a service other than auth must not offer."""

from __future__ import annotations

import pytest


@pytest.mark.django_db
@pytest.mark.parametrize("role", [None, "admin"])
def test_a_service_other_than_auth_changes_no_password(client, access_token, settings, role):
    if role:
        client.cookies[settings.ACCESS_COOKIE] = access_token(role=role, username="root")
        assert client.get("/admin/inventory/").status_code == 200
    for call in (client.get, client.post):
        assert call("/admin/inventory/password_change/").status_code == 404
