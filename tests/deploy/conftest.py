"""Fixtures of the deployment's tests."""

from __future__ import annotations

from typing import Any

import pytest

from tests.deploy import files


@pytest.fixture(scope="session")
def env_file() -> dict[str, str]:
    """Return the settings and secrets of a deployment behind https."""
    return files.env_file()


@pytest.fixture(scope="session")
def containers(env_file: dict[str, str]) -> dict[str, dict[str, Any]]:
    """Return the containers of the compose file, filled in with those settings."""
    services: dict[str, dict[str, Any]] = files.compose(env_file)["services"]
    return services
