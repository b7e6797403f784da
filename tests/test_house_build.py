"""The build that runs is the one that was asked for: CI runs the core's tests on both."""

import os

from isthmus.node.build import build_kind, version_line


def test_the_expected_build_runs() -> None:
    assert build_kind() == os.environ.get("ISTHMUS_EXPECT_BUILD", build_kind())
    assert f"{build_kind()} core" in version_line()
