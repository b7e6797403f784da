"""A campaign that was interrupted goes on where it was, and counts what it did before."""

import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from tests.campaigns import ROOT
from tests.settlement.campaign.record import FILE, Episode, Record
from tests.settlement.campaign.run import Standing


def ended(record: Record, episode: Episode, *, over: int = 0, problem: str = "") -> None:
    """It did what it was to do, and some settlements more."""
    problems = [problem] if problem else []
    episode.standing = Standing(settlements=episode.settlements + over, kills=episode.kills, problems=problems)
    record.episodes.append(episode)


def the_rest(record: Record, *, settlements: int, kills: int, size: int, over: int = 0) -> list[tuple[int, int]]:
    wanted = []
    while episode := record.following("toy", settlements=settlements, kills=kills, size=size):
        wanted.append((episode.settlements, episode.kills))
        ended(record, episode, over=over)
    return wanted


def test_episodes_share_settlements_and_kills(tmp_path: Path) -> None:
    assert the_rest(Record(tmp_path, 1), settlements=1_000, kills=200, size=300) == [
        (300, 60),
        (300, 60),
        (300, 60),
        (100, 20),
    ]


def test_what_an_episode_did_beyond_is_counted(tmp_path: Path) -> None:
    record = Record(tmp_path, 1)
    assert the_rest(record, settlements=11, kills=3, size=5, over=1) == [(5, 2), (5, 1)]
    assert record.sum("toy").settlements == 12 and record.sum("toy").kills == 3


def test_kills_that_are_left_alone_are_done_too(tmp_path: Path) -> None:
    record = Record(tmp_path, 1)
    assert the_rest(record, settlements=5, kills=1, size=5) == [(5, 1)]
    assert the_rest(record, settlements=5, kills=4, size=5) == [(1, 3)]


def test_one_that_is_read_goes_on_with_other_seeds_than_before(tmp_path: Path) -> None:
    record = Record(tmp_path, 7)
    first = record.following("toy", settlements=4, kills=0, size=2)
    assert first is not None
    ended(record, first, problem="odd")
    record.write()
    read = Record.read(tmp_path)
    assert read == record
    second = read.following("toy", settlements=4, kills=0, size=2)
    assert second is not None
    assert (first.seed, second.seed) == ("7/toy/1", "7/toy/2")
    assert read.sum("toy").problems == ["toy/1: odd"]
    other = read.following("bank", settlements=4, kills=0, size=2)
    assert other is not None and other.name == "bank/1"


def command(*arguments: str) -> list[str]:
    return [sys.executable, "-m", "tests.settlement.campaign", "4", "--kind", "toy", "--episode", "2", *arguments]


@pytest.mark.slow
def test_a_campaign_that_is_stopped_goes_on(tmp_path: Path) -> None:
    environment = os.environ | {"PYTHONUNBUFFERED": "1"}
    with subprocess.Popen(
        command("--folder", str(tmp_path)), cwd=ROOT, env=environment, stdout=subprocess.PIPE, text=True
    ) as process:
        assert process.stdout is not None
        for line in process.stdout:
            if line.startswith("toy/1: "):
                process.send_signal(signal.SIGTERM)
                break
        rest = process.stdout.read()
        assert process.wait(30) == 130
    assert f"make settle-crash N=4 RESUME={tmp_path}" in rest
    before = json.loads((tmp_path / FILE).read_text())["episodes"]
    assert [one["number"] for one in before] == [1]
    again = subprocess.run(
        command("--resume", str(tmp_path)), cwd=ROOT, capture_output=True, text=True, check=False, timeout=120
    )
    assert again.returncode == 0, again.stdout + again.stderr
    assert "toy/1: " not in again.stdout and "toy/2: " in again.stdout
    after = json.loads((tmp_path / FILE).read_text())["episodes"]
    assert after[:1] == before
    assert sum(one["standing"]["settlements"] for one in after) >= 4


def test_without_a_campaign_in_the_folder_it_says_so(tmp_path: Path) -> None:
    done = subprocess.run(command("--resume", str(tmp_path)), cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 2
    assert done.stdout.startswith(f"{tmp_path} has no campaign to go on with") and not done.stderr
