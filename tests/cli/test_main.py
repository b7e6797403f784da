"""The command line as a whole: lazy commands, versions, completion, and errors that end in one line."""

import os
import subprocess
import sys
from collections.abc import Callable

import click
import pytest

from isthmus.cli.errors import run_guarded
from isthmus.cli.main import COMMANDS, cli
from isthmus.errors import ConfigError, JournalError


def run(*args: str, **env: str) -> subprocess.CompletedProcess[str]:
    """`python -m isthmus …` in a process of its own."""
    command = [sys.executable, "-m", "isthmus", *args]
    return subprocess.run(command, capture_output=True, text=True, timeout=120, env={**os.environ, **env}, check=False)


def test_version_says_which_build_runs() -> None:
    shown = run("--version")
    assert shown.returncode == 0
    assert shown.stdout.startswith("isthmus 0.")
    assert "interpreted core" in shown.stdout or "compiled core" in shown.stdout


@pytest.mark.parametrize("name", sorted(COMMANDS))
def test_each_command_has_help_with_examples(name: str) -> None:
    command = cli.get_command(click.Context(cli), name)
    assert command is not None
    commands = [command]
    if isinstance(command, click.Group):
        commands += command.commands.values()
    for each in commands:
        if isinstance(each, click.Group):
            continue
        text = each.get_help(click.Context(each, info_name=each.name))
        assert "Example" in text, each.name


def test_help_imports_no_command() -> None:
    code = (
        "import sys\nfrom isthmus.cli.main import main\n"
        "try: main(['--help'])\nexcept SystemExit: pass\n"
        "print([m for m in sys.modules if m.startswith(('aiohttp', 'isthmus.node', 'isthmus.client', 'asyncio'))])"
    )
    shown = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=120, check=True)
    assert shown.stdout.splitlines()[-1] == "[]"


def test_an_unknown_command_is_one_line_and_status_2() -> None:
    shown = run("teleport")
    assert shown.returncode == 2
    assert shown.stderr.count("\n") == 1
    assert "teleport" in shown.stderr
    assert "isthmus --help" in shown.stderr


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_completion_prints_a_script(shell: str) -> None:
    shown = run("completion", shell)
    assert shown.returncode == 0
    assert "_ISTHMUS_COMPLETE" in shown.stdout


def test_completion_lists_commands_and_options() -> None:
    env = {"_ISTHMUS_COMPLETE": "bash_complete", "COMP_CWORD": "1"}
    assert "plain,decode" in run(**env, COMP_WORDS="isthmus de").stdout.split()
    assert "plain,--version" in run(**env, COMP_WORDS="isthmus --v").stdout.split()


def raising(error: BaseException) -> Callable[[], object]:
    def command() -> object:
        raise error

    return command


@pytest.mark.parametrize(
    ("error", "status", "words"),
    [
        (ConfigError("rates", "is empty", "Add one", line=3), 2, "line 3: rates: is empty. Add one"),
        (JournalError("row 7 is\ncorrupt"), 1, "row 7 is corrupt"),
        (OSError(98, "Address already in use"), 1, "Address already in use"),
        (PermissionError(13, "Permission denied", "/x"), 1, "Permission denied: /x"),
        (click.UsageError("no such option"), 2, "no such option. Try: isthmus --help"),
        (click.ClickException("no"), 1, "no"),
        (KeyboardInterrupt(), 130, "interrupted"),
        (click.Abort(), 130, "interrupted"),
        (ExceptionGroup("tasks", [JournalError("first"), ValueError("second")]), 1, "first"),
        (UnicodeEncodeError("utf-8", "a\udcff", 1, 2, "surrogates not allowed"), 2, "is not UTF-8 text"),
        (KeyError("x"), 1, "this is a bug: KeyError: 'x' in test_main.py:"),
    ],
)
def test_an_error_is_one_line_and_a_status(
    error: BaseException, status: int, words: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run_guarded(raising(error), debug=lambda: False) == status
    shown = capsys.readouterr()
    assert shown.out == ""
    assert shown.err.count("\n") == 1
    assert shown.err.startswith("isthmus: ")
    assert words in shown.err


def test_debug_shows_the_trace(capsys: pytest.CaptureFixture[str]) -> None:
    assert run_guarded(raising(KeyError("x")), debug=lambda: True) == 1
    assert "Traceback" in capsys.readouterr().err


@pytest.mark.parametrize(("result", "status"), [(None, 0), (3, 3), ("text", 0)])
def test_a_command_may_return_its_status(result: object, status: int) -> None:
    assert run_guarded(lambda: result, debug=lambda: False) == status


def test_optimised_python_is_refused() -> None:
    """Assertions guard the books; `python -O` would take them away."""
    command = [sys.executable, "-O", "-m", "isthmus", "completion", "bash"]
    shown = subprocess.run(command, capture_output=True, text=True, timeout=120, check=False)
    assert shown.returncode == 2
    assert "python -O" in shown.stderr


def test_a_reader_that_goes_away_is_no_error() -> None:
    code = f"{sys.executable} -m isthmus completion bash | head -n 1; echo status ${{PIPESTATUS[0]}}"
    shown = subprocess.run(["bash", "-c", code], capture_output=True, text=True, timeout=120, check=False)
    assert shown.stderr == ""
    assert shown.stdout.endswith("status 0\n")
