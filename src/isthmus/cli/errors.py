"""The error boundary of the command line: whatever goes wrong ends in one line on stderr and an exit status.

Status 0: done. 1: it failed, and the line says why. 2: the command line or a setting is wrong; the line says which
and what to do. 130: interrupted from the keyboard. A stack trace is shown to those who ask for it with `--debug`.
"""

import os
import sys
import traceback
from collections.abc import Callable

import click

from isthmus.errors import ConfigError, IsthmusError

FAILED = 1
MISUSED = 2
INTERRUPTED = 130


def run_guarded(command: Callable[[], object], *, debug: Callable[[], bool]) -> int:
    """Run `command` and return the exit status; nothing but SystemExit leaves here.

    A command may return its status as an int; any other value means 0. `debug` is asked only after an error, when
    the options have been read.
    """
    try:
        result = command()
        sys.stdout.flush()
    except SystemExit:
        raise
    except BrokenPipeError:
        return _reader_went_away()
    except BaseException as error:  # noqa: BLE001  (this is the boundary)
        if debug() and not isinstance(error, click.ClickException):
            traceback.print_exception(error)
        return _report(error)
    return result if isinstance(result, int) else 0


def _report(error: BaseException) -> int:
    error = _first_of_group(error)
    if isinstance(error, KeyboardInterrupt | click.exceptions.Abort):
        _say("interrupted")
        return INTERRUPTED
    if isinstance(error, click.UsageError):
        # The Context names the sub-command whose help would have told.
        path = error.ctx.command_path if error.ctx else "isthmus"
        _say(f"{_sentence(error.format_message())} Try: {path} --help", who=path)
        return MISUSED
    if isinstance(error, click.ClickException):
        _say(error.format_message())
        return error.exit_code
    if isinstance(error, ConfigError):
        _say(str(error))
        return MISUSED
    if isinstance(error, IsthmusError):
        _say(str(error))
        return FAILED
    if isinstance(error, UnicodeEncodeError) and "surrogates" in error.reason:
        # Octets of the command line or the environment that are no text, on their way to somebody who takes text.
        _say("something that was given is not UTF-8 text: look at the arguments")
        return MISUSED
    if isinstance(error, OSError):
        # The system said no: a port in use, a folder that isn't ours. Not a bug.
        _say(f"{error.strerror or error}{f': {error.filename}' if error.filename else ''}")
        return FAILED
    _say(
        f"this is a bug: {_describe(error)}. Please report it to the project (CONTRIBUTING.md says how) with what "
        "`isthmus --version` and the same command with `isthmus --debug …` print"
    )
    return FAILED


def _first_of_group(error: BaseException) -> BaseException:
    """Tasks fail in groups; people are told the first failure."""
    while isinstance(error, BaseExceptionGroup):
        error = error.exceptions[0]
    return error


def _describe(error: BaseException) -> str:
    frames = traceback.extract_tb(error.__traceback__)
    where = f" in {os.path.basename(frames[-1].filename)}:{frames[-1].lineno}" if frames else ""
    text = " ".join(str(error).split())
    return f"{type(error).__name__}{f': {text}' if text else ''}{where}"


def _sentence(text: str) -> str:
    return text if text.endswith((".", "?", "!")) else f"{text}."


def _say(text: str, *, who: str = "isthmus") -> None:
    # One line, whatever the error carried: logs and scripts read it by lines.
    click.echo(f"{who}: {' '.join(text.split())}", err=True)


def _reader_went_away() -> int:
    """`isthmus history | head` is no error; but what is still buffered must not be written at exit."""
    devnull = os.open(os.devnull, os.O_WRONLY)
    os.dup2(devnull, sys.stdout.fileno())
    return 0
