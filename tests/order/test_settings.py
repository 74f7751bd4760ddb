"""Settings of payments: a wrong one stops the start and says what to do."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]


def run(program, environment):
    return subprocess.run(
        [sys.executable, "-c", f"import django; django.setup(); {program}"],
        cwd=ROOT,
        env=os.environ | {"DJANGO_SETTINGS_MODULE": "services.order.settings"} | environment,
        capture_output=True,
        text=True,
        check=False,
    )


STRIPE = {"STRIPE_SECRET_KEY": "sk_test_x", "STRIPE_WEBHOOK_SECRET": "whsec_x"}
SANDBOX = {"SANDBOX_WEBHOOK_SECRET": "a secret of the sandbox's"}
NO_STRIPE = dict.fromkeys(STRIPE, "")
NO_SANDBOX = dict.fromkeys(SANDBOX, "")


@pytest.mark.parametrize(
    ("environment", "takes_money", "known"),
    [
        (SANDBOX | NO_STRIPE, "sandbox", {"sandbox"}),
        (SANDBOX | STRIPE, "sandbox", {"sandbox", "stripe"}),
        (SANDBOX | STRIPE, "stripe", {"sandbox", "stripe"}),
        (NO_SANDBOX | STRIPE, "stripe", {"stripe"}),
        (SANDBOX | STRIPE | {"STRIPE_WEBHOOK_SECRET": ""}, "sandbox", {"sandbox"}),
    ],
)
def test_one_provider_takes_new_money_and_all_that_are_configured_refund(
    environment, takes_money, known
):
    program = (
        "from services.order.providers import registry;"
        "print({one.name for one in registry.methods().values()}, sorted(registry._providers()))"
    )
    result = run(program, environment | {"PAYMENT_PROVIDER": takes_money})

    assert result.stdout.strip() == f"{ {takes_money} } {sorted(known)}"


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
    result = run(
        "from services.order.providers.registry import methods; print(*methods())", environment
    )
    assert (result.returncode == 0) is (told == "")
    if told:
        assert "ImproperlyConfigured" in result.stderr
        assert told in result.stderr
    else:
        provider = environment["PAYMENT_PROVIDER"] or "sandbox"
        assert result.stdout.startswith(provider)
