"""Settings of payments: a wrong one stops the start and says what to do."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]


@pytest.mark.parametrize(
    ("environment", "told"),
    [
        ({"PAYMENT_PROVIDER": "gold"}, "PAYMENT_PROVIDER is one of sandbox, stripe"),
        ({"PAYMENT_PROVIDER": "stripe"}, "STRIPE_SECRET_KEY"),
        (
            {"PAYMENT_PROVIDER": "stripe", "STRIPE_SECRET_KEY": "sk_test_x"},
            "STRIPE_WEBHOOK_SECRET",
        ),
        ({"LATE_PAYMENT": "keep"}, "LATE_PAYMENT is refund or rereserve"),
        (
            {
                "PAYMENT_PROVIDER": "stripe",
                "STRIPE_SECRET_KEY": "sk_test_x",
                "STRIPE_WEBHOOK_SECRET": "whsec_x",
                "SANDBOX_WEBHOOK_SECRET": "",
            },
            "",
        ),
        ({"PAYMENT_PROVIDER": "", "LATE_PAYMENT": ""}, ""),
    ],
)
def test_a_wrong_setting_says_what_to_do(environment, told):
    program = (
        "import django; django.setup();"
        "from services.order.providers.registry import methods; print(*methods())"
    )
    result = subprocess.run(
        [sys.executable, "-c", program],
        cwd=ROOT,
        env=os.environ | {"DJANGO_SETTINGS_MODULE": "services.order.settings"} | environment,
        capture_output=True,
        text=True,
        check=False,
    )
    assert (result.returncode == 0) is (told == "")
    if told:
        assert "ImproperlyConfigured" in result.stderr
        assert told in result.stderr
    else:
        provider = environment["PAYMENT_PROVIDER"] or "sandbox"
        assert result.stdout.startswith(provider)
