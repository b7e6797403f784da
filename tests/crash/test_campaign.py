"""A campaign of kills can be interrupted from its first moment on."""

from pathlib import Path

import pytest

from tests.crash.campaign import Campaign


def test_one_that_was_only_begun_is_gone_on_with(tmp_path: Path) -> None:
    begun = Campaign.begin(tmp_path, 10, 5, lambda _: None)
    assert Campaign.resume(tmp_path, 10, lambda _: None).standing == begun.standing
    assert begun.standing.seed == 5


def test_a_folder_without_one_is_none(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError):
        Campaign.resume(tmp_path, 10, lambda _: None)
