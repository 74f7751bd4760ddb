"""Who may call, for DRF views: every view names one of these."""

from __future__ import annotations

from typing import TYPE_CHECKING

from rest_framework.permissions import BasePermission
from rest_framework.request import Request

if TYPE_CHECKING:
    # DRF imports this module while it still builds APIView.
    from rest_framework.views import APIView


class _RoleIn(BasePermission):
    roles: frozenset[str] = frozenset()

    def has_permission(self, request: Request, view: APIView) -> bool:
        return getattr(request.user, "role", None) in self.roles


class Nobody(_RoleIn):
    """The default: a view that forgets to say who may call it is closed."""


class IsUser(_RoleIn):
    """A signed-in person, admin or not."""

    roles = frozenset({"user", "admin"})


class IsAdmin(_RoleIn):
    """A signed-in admin."""

    roles = frozenset({"admin"})


class IsService(_RoleIn):
    """Another service of the system."""

    roles = frozenset({"service"})


class IsServiceOrAdmin(_RoleIn):
    """Another service, or an admin who looks after the sale."""

    roles = frozenset({"service", "admin"})
