from django.apps import AppConfig


class CommonConfig(AppConfig):
    name = "common"

    def ready(self) -> None:
        # drf-spectacular learns of the authentication schemes when they are imported.
        from common import openapi  # noqa: F401
