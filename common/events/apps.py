from django.apps import AppConfig


class EventsConfig(AppConfig):
    name = "common.events"
    label = "events"

    def ready(self) -> None:
        from common import metrics
        from common.events.metrics import collect

        metrics.register(collect)
