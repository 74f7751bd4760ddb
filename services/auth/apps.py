from django.apps import AppConfig


class AuthConfig(AppConfig):
    name = "services.auth"
    # Django's own auth app has the label "auth".
    label = "accounts"
    verbose_name = "Accounts"
