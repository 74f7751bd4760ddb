"""Where events travel and how many relays send them is the caller's to say, and is kept."""

from __future__ import annotations

import pytest

from deploy.stack import cli, environment, venv
from deploy.stack.errors import StackError
from deploy.stack.layout import write_json
from deploy.stack.supervisor import Stack

NATS = "nats://127.0.0.1:4222"


def sets_of(*arguments, layout, monkeypatch):
    """Return the requirement sets that a command would install."""
    asked = []
    monkeypatch.setattr(venv, "ensure", lambda sets, layout: asked.extend(sets) or layout.var)
    monkeypatch.setattr(venv, "is_running", lambda python: True)
    monkeypatch.setenv("FLASHSALE_VAR", str(layout.var))
    cli._enter_virtual_environment(cli.build_parser().parse_args(arguments), arguments)
    return asked


@pytest.mark.parametrize(
    ("url", "sets"),
    [
        ("", ["local"]),
        ("redis://127.0.0.1:6379/3", ["local"]),
        (NATS, ["local", "nats"]),
        (f"{NATS},nats://127.0.0.1:4223", ["local", "nats"]),
        ("tls://nats.example.org", ["local", "nats"]),
    ],
)
def test_up_installs_what_the_transport_needs(url, sets, layout, monkeypatch):
    monkeypatch.setenv("EVENT_TRANSPORT", url)
    assert sets_of("up", layout=layout, monkeypatch=monkeypatch) == sets


def test_later_commands_use_the_transport_that_the_system_was_started_with(layout, monkeypatch):
    monkeypatch.setenv("EVENT_TRANSPORT", NATS)
    saved = environment.for_later({"EVENT_TRANSPORT": NATS, "PATH": "/bin"}, "sqlite")
    assert saved["env"]["EVENT_TRANSPORT"] == NATS
    layout.environment_json.parent.mkdir(parents=True, exist_ok=True)
    write_json(layout.environment_json, saved)
    monkeypatch.delenv("EVENT_TRANSPORT")
    assert sets_of("audit", layout=layout, monkeypatch=monkeypatch) == ["local", "nats"]


@pytest.mark.parametrize(("text", "more"), [("", 0), ("1", 0), ("3", 2)])
def test_relays_are_counted_with_the_one_among_the_loops(text, more):
    assert environment.more_relays({"RELAYS": text}) == more


@pytest.mark.parametrize("text", ["0", "9", "-1", "two", "²"])
def test_a_number_of_relays_that_cannot_be_is_refused_before_anything_starts(text, tmp_path):
    with pytest.raises(StackError, match="RELAYS is a number from 1 to 8"):
        Stack(tmp_path, env={"RELAYS": text}).start()
