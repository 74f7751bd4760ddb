from django.apps import AppConfig


class CommonConfig(AppConfig):
    name = "common"

    def ready(self) -> None:
        # drf-spectacular learns of the authentication schemes when they are imported, and Django of
        # the check of the database.
        from common import durability, openapi  # noqa: F401
