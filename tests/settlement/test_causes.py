"""Alarms end with their cause, and not before the last of several."""

from isthmus.settlement.causes import Causes


def test_an_alarm_ends_when_the_last_work_that_told_it_goes_through() -> None:
    causes = Causes()
    causes.add("turn", "bob", "step_refused")
    causes.add("turn", "bob", "refused")
    causes.add("claim", "bob", "step_refused")
    causes.add("claim", "eve", "refused")
    assert causes.end("turn", "bob") == ["refused"]
    assert causes.end("turn", "bob") == []
    assert causes.end("claim", "bob") == ["step_refused"]
    assert causes.end("claim", "eve") == ["refused"]


def test_what_an_account_left_behind_ends_nothing() -> None:
    causes = Causes()
    causes.add("turn", "bob", "refused")
    causes.add("turn", "", "away")
    causes.forget("bob")
    assert causes.end("turn", "bob") == []
    assert causes.end("turn", "") == ["away"]
