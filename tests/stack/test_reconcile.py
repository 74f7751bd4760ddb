"""What reconcile plans: each finding has a repair or a word of advice, each repair is done once."""

from __future__ import annotations

import re

import pytest

from common.auditing import Violation
from deploy.stack import reconcile
from deploy.stack.audit import Check, Result
from deploy.stack.layout import ROOT
from deploy.stack.repairs import ADVICE, REPAIRS, plan

SERVICES = ("catalog", "inventory", "order")
PROJECTED = ("stock", "offer", "label")
TOLD_BY = (
    *("common/events/audit.py", "deploy/stack/invariants.py"),
    *(f"services/{name}/audit.py" for name in SERVICES),
    *("services/order/history_audit.py", "services/order/key_audit.py"),
)


def source(path):
    return (ROOT / path).read_text()


def violation(finding, row_id="1", **details):
    return Violation(finding, "order", row_id, f"{finding} {row_id}", details)


def check(*violations):
    return Check("I4", "all", "a check", len(violations), list(violations))


def test_a_finding_has_a_repair_or_advice_and_some_audit_tells_it():
    assert set(REPAIRS) & set(ADVICE) == set()
    told = "".join(map(source, TOLD_BY))
    # Those about projections are put together from what is projected.
    made_up = {f"{what}_{how}" for what in PROJECTED for how in ("behind", "from_nowhere")}
    untold = {one for one in {*REPAIRS, *ADVICE} - made_up if f'"{one}"' not in told}
    assert untold == set()


def test_every_finding_of_the_audits_is_known():
    """Findings are the first thing that a violation is made of."""
    made = r'(?:Violation|_reservation|_order|_payment)\(\s*"([a-z_]+)"'
    told = {finding for path in TOLD_BY for finding in re.findall(made, source(path))}
    assert len(told) > 20
    assert told - set(REPAIRS) - set(ADVICE) == set()


@pytest.mark.parametrize("finding", REPAIRS)
def test_every_repair_is_one_that_its_service_has(finding):
    repair = REPAIRS[finding]
    path = f"services/{repair.service}/repairing.py" if repair.service else "common/repairing.py"
    assert f'"{repair.name}": {repair.name}' in source(path)


def test_a_row_is_repaired_once_however_many_checks_name_it():
    one = violation("held_though_over", order_id="o")
    other_buyer = [violation("buyer_miscounted", buyer_id=name) for name in ("ann", "bob")]
    planned, left = plan([check(one, *other_buyer), check(one)])
    assert [p.repair.name for p in planned] == ["fit_hold", "recount_buyer", "recount_buyer"]
    assert left == []
    assert planned[0].item() == {
        "repair": "fit_hold",
        "id": "1",
        "why": "held_though_over 1",
        "order_id": "o",
    }


def test_an_event_goes_to_the_service_that_the_finding_names():
    parked = violation("event_parked", service="catalog")
    lost = violation("event_not_applied", service="inventory")
    planned, _ = plan([check(parked, lost)])
    assert [(p.service, p.repair.name) for p in planned] == [
        ("catalog", "retry_event"),
        ("inventory", "resend_event"),
    ]


def test_what_a_person_must_decide_is_never_planned():
    sold_nothing, books = violation("sold_nothing"), violation("stock_wrong")
    unheard_of = violation("something_new")
    planned, left = plan([check(sold_nothing, books, unheard_of)])
    assert planned == []
    assert [one.finding for _, one in left] == ["sold_nothing", "stock_wrong", "something_new"]


def test_a_dry_run_says_what_it_would_do_and_what_only_a_person_can_decide(capsys):
    found = check(violation("order_unsettled", "o1"), violation("sold_nothing", "o2"))

    reconcile._show(Result([found], 1.0), [], repaired=False)

    shown = capsys.readouterr().out
    assert "What --repair would do:" in shown
    assert re.search(r"^order +advance_order +o1 +does the order's next step$", shown, re.M)
    assert "I4 all: sold_nothing o2" in shown
    assert ADVICE["sold_nothing"] in shown
    assert shown.splitlines()[-1] == "1 to be repaired, 1 for a person to decide."


def test_a_clean_system_needs_one_line(capsys):
    reconcile._show(Result([check()], 1.0), [], repaired=True)
    assert capsys.readouterr().out == "All invariants hold (1.0 s).\n"


def test_repairs_of_a_stopped_system_are_refused_in_one_line(manage_all, layout):
    layout.environment_json.write_text('{"database": "sqlite", "env": {}}')
    result = manage_all("reconcile", "--repair")
    assert result.returncode == 1
    [line] = result.stderr.strip().splitlines()
    assert line.startswith("manage_all: it is not running: repairs go through its services")


@pytest.mark.parametrize("wrong", ["-1", "x", "1.5"])
def test_a_wait_is_a_whole_number_of_seconds(manage_all, wrong):
    assert manage_all("reconcile", "--wait", wrong).returncode == 2
