"""run_once: at most one effect per key, and the same answer every time after."""

from __future__ import annotations

import threading
import time
from datetime import timedelta
from functools import partial

import pytest
from django.db import OperationalError
from django.test import RequestFactory
from django.utils import timezone

from common.errors import Problem
from common.idempotency import records
from common.idempotency.keys import fingerprint, idempotency_key
from common.idempotency.models import IdempotencyRecord
from common.idempotency.records import Answer, purge_records, run_once
from common.transactions import in_transaction
from services.inventory.models import TicketLabel
from tests.common.concurrency import times, together
from tests.common.faults import losing_the_answer_to_a_commit
from tests.common.handlers import tallies, tally

pytestmark = pytest.mark.django_db(transaction=True)


def effect(execution, answer="done", status=201, number=1):
    """Do something that shows how often it was done, and keep the answer with it."""

    def work():
        tally({"number": number}, {"id": "x"})
        return execution.finish(status, {"answer": answer})

    return in_transaction(work)


def once(work=effect, *, user_id="5", operation="op", key="k", body="f"):
    return run_once(work, user_id=user_id, operation=operation, key=key, fingerprint=body)


def refusal_of(call, **arguments):
    """Return the problem that a call raises."""
    with pytest.raises(Problem) as refusal:
        call(**arguments)
    return refusal.value


def test_the_first_request_is_carried_out_and_the_others_are_answered():
    assert once() == Answer(201, {"answer": "done"})
    assert once() == Answer(201, {"answer": "done"}, replayed=True)
    assert once(partial(effect, answer="other")) == Answer(201, {"answer": "done"}, replayed=True)
    assert tallies() == {1: 1}


def test_a_refusal_that_is_finished_is_answered_again():
    refusal = partial(effect, answer="no", status=409)
    assert once(refusal) == Answer(409, {"answer": "no"})
    assert once() == Answer(409, {"answer": "no"}, replayed=True)


def test_another_body_under_the_key_is_refused():
    once(body="one")
    refusal = refusal_of(once, body="two")
    assert (refusal.status_code, refusal.code) == (422, "idempotency_key_reused")
    assert tallies() == {1: 1}


def test_another_body_is_refused_also_while_the_first_is_at_work():
    def meanwhile(execution):
        (problem,) = together(lambda: refusal_of(once, body="two"))
        assert problem.code == "idempotency_key_reused"
        return effect(execution)

    assert once(meanwhile, body="one").status == 201


@pytest.mark.parametrize(
    "other",
    [{"user_id": "6"}, {"operation": "other"}, {"key": "K"}, {"user_id": "5o", "operation": "p"}],
)
def test_keys_of_other_users_and_operations_are_other_keys(other):
    once()
    assert not once(partial(effect, number=2), **other).replayed
    assert tallies() == {1: 1, 2: 1}


def test_many_at_once_have_one_effect_and_one_answer():
    answers = together(*times(10, once))

    assert tallies() == {1: 1}
    assert {(answer.status, str(answer.body)) for answer in answers} == {
        (201, "{'answer': 'done'}")
    }
    assert sum(not answer.replayed for answer in answers) == 1


def test_who_comes_while_the_first_is_at_work_waits_for_its_answer():
    at_work = threading.Event()

    def slow(execution):
        at_work.set()
        time.sleep(0.3)
        return effect(execution)

    def second():
        assert at_work.wait(10)
        return once()

    first_answer, second_answer = together(lambda: once(slow), second)

    assert not first_answer.replayed
    assert second_answer.replayed
    assert tallies() == {1: 1}


def test_who_has_waited_long_enough_is_told_to_come_back(monkeypatch):
    monkeypatch.setattr(records, "WAIT_SECONDS", 0.2)

    def meanwhile(execution):
        (problem,) = together(lambda: refusal_of(once))
        assert (problem.status_code, problem.code) == (409, "request_in_progress")
        assert problem.wait == 1, "Retry-After"
        return effect(execution)

    assert not once(meanwhile).replayed
    assert once().replayed


@pytest.mark.parametrize("error", [RuntimeError("crash"), Problem(503, "x_unavailable", "Later.")])
def test_what_fails_is_not_kept_and_may_be_tried_again(error):
    def fail(execution):
        def work():
            tally({"number": 1}, {"id": "x"})
            raise error

        return in_transaction(work)

    with pytest.raises(type(error)):
        once(fail)

    assert IdempotencyRecord.objects.count() == 0
    assert not once().replayed
    assert tallies() == {1: 1}


def test_what_does_not_finish_is_not_kept():
    assert once(lambda execution: Answer(409, "sale_not_open")).status == 409
    assert once().status == 201


def abandon():
    """Leave the record of a worker that died, its lock run out."""

    def die(execution):
        execution.give_up = lambda: None  # a dead process cleans nothing up
        raise SystemExit

    with pytest.raises(SystemExit):
        once(die)
    IdempotencyRecord.objects.update(locked_until=timezone.now() - timedelta(seconds=1))


def test_after_a_crash_the_lock_runs_out_and_the_key_works():
    abandon()
    assert once() == Answer(201, {"answer": "done"})
    assert once().replayed
    assert tallies() == {1: 1}


def test_an_abandoned_key_is_not_taken_over_with_another_body():
    abandon()
    assert refusal_of(once, body="another").code == "idempotency_key_reused"


def test_one_of_many_heirs_takes_an_abandoned_key_over():
    abandon()
    answers = together(*times(8, once))
    assert sum(not answer.replayed for answer in answers) == 1
    assert tallies() == {1: 1}


def test_a_worker_that_was_taken_over_has_no_effect_when_it_wakes_up():
    """It slept longer than its lock; its heir has carried the operation out meanwhile."""

    def sleeper(execution):
        IdempotencyRecord.objects.update(locked_until=timezone.now() - timedelta(seconds=1))
        (heir,) = together(lambda: once(partial(effect, answer="heir")))
        assert not heir.replayed
        return effect(execution, answer="sleeper")

    assert once(sleeper) == Answer(201, {"answer": "heir"}, replayed=True)
    assert tallies() == {1: 1}


def test_a_worker_that_was_taken_over_does_not_take_the_key_from_its_heir():
    def sleeper(execution):
        IdempotencyRecord.objects.update(locked_until=timezone.now() + timedelta(seconds=9))
        raise RuntimeError("woke up and failed")

    with pytest.raises(RuntimeError):
        once(sleeper)
    assert IdempotencyRecord.objects.count() == 1, "the heir is still at work"


def test_a_lost_answer_to_commit_is_found_out_and_nothing_is_done_twice():
    with losing_the_answer_to_a_commit(of_table="ticket_label") as lost:
        answer = once()
    assert lost
    assert (answer.status, answer.body) == (201, {"answer": "done"})
    assert tallies() == {1: 1}


def test_a_lost_answer_to_the_claim_does_not_lock_the_key():
    with losing_the_answer_to_a_commit("idempotency_record") as lost:
        assert once() == Answer(201, {"answer": "done"})
    assert lost
    assert tallies() == {1: 1}


def test_a_database_that_goes_away_keeps_nothing():
    def fail(execution):
        raise OperationalError(2006, "gone")

    with pytest.raises(OperationalError):
        once(fail)
    assert once().status == 201


def test_effect_and_answer_are_kept_together_or_not_at_all():
    def fail_after_finish(execution):
        def work():
            effect(execution)
            raise RuntimeError("crash before COMMIT")

        return in_transaction(work)

    with pytest.raises(RuntimeError):
        once(fail_after_finish)
    assert (tallies(), IdempotencyRecord.objects.count()) == ({}, 0)
    assert TicketLabel.objects.count() == 0


def test_answers_are_kept_for_two_days():
    once(key="old")
    once(key="young")
    old = IdempotencyRecord.objects.filter(key="old")
    old.update(created_at=timezone.now() - timedelta(hours=48, minutes=1))

    assert purge_records() == 1
    assert list(IdempotencyRecord.objects.values_list("key", flat=True)) == ["young"]
    assert purge_records() == 0


@pytest.mark.parametrize("key", ["a", "A-Z_a-z-0-9", "x" * 64, "-", "0"])
def test_a_well_formed_key_is_read(key):
    request = RequestFactory().post("/", headers={"Idempotency-Key": key})
    assert idempotency_key(request, required=True) == key


@pytest.mark.parametrize("key", ["", " ", "a b", "x" * 65, "é", "a\n", "a\x00", "٣", "a.b", "a/b"])
def test_a_malformed_key_is_refused(key):
    request = RequestFactory().post("/", headers={"Idempotency-Key": key})
    for required in (True, False):
        with pytest.raises(Problem) as refusal:
            idempotency_key(request, required=required)
        assert (refusal.value.status_code, refusal.value.code) == (400, "idempotency_key_invalid")


def test_a_missing_key_matters_only_where_it_is_required():
    request = RequestFactory().post("/")
    assert idempotency_key(request, required=False) is None
    with pytest.raises(Problem) as refusal:
        idempotency_key(request, required=True)
    assert (refusal.value.status_code, refusal.value.code) == (400, "idempotency_key_required")


def test_a_fingerprint_sees_the_content_and_not_how_it_was_written():
    one = fingerprint("POST", "/api/orders", {"a": 1, "b": {"c": 2, "d": 3}})
    assert one == fingerprint("POST", "/api/orders", {"b": {"d": 3, "c": 2}, "a": 1})
    others = [
        ("PUT", "/api/orders", {"a": 1, "b": {"c": 2, "d": 3}}),
        ("POST", "/api/orders/1", {"a": 1, "b": {"c": 2, "d": 3}}),
        ("POST", "/api/orders", {"a": 1, "b": {"c": 2, "d": 4}}),
        ("POST", "/api/orders", {"a": "1", "b": {"c": 2, "d": 3}}),
        ("POST", "/api/orders", [{"a": 1}, {"b": {"c": 2, "d": 3}}]),
        ("POST", "/api/orders", None),
    ]
    assert len({one, *(fingerprint(*other) for other in others)}) == 7
