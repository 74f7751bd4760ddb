"""Auth's database router."""

from common.routers import ServiceRouter


class AuthRouter(ServiceRouter):
    """Users, their logins and refresh tokens; nothing else."""

    app_labels = frozenset({"accounts"})
