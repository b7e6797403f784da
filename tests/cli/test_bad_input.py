"""Every command, found by walking the groups, with nonsense in each argument and option: one line, and a status."""

from collections.abc import Iterator
from pathlib import Path

import click
import pytest

from isthmus.cli.main import cli, main

# They ask or run for long by themselves, or their first argument says which of several commands they are.
LONG = {"demo", "node run", "ledger bank run", "ledger xrp-dev", "sim run", "sim sweep", "sim topology", "wallet init"}
SEVERAL_LINES = {"node check"}  # by design: all problems of a file
NONSENSE = [
    "",
    "-1",
    "18446744073709551616",
    "1.5",
    "x" * 5_000,
    "\udcff\udcfe",
    "nosuch",
    ".",
    "octets",
    "NaN",
    "٣",
    "\n",
]


def leaves(command: click.Command, path: tuple[str, ...] = ()) -> Iterator[tuple[tuple[str, ...], click.Command]]:
    if not isinstance(command, click.Group):
        yield path, command
        return
    context = click.Context(command)
    for name in command.list_commands(context):
        found = command.get_command(context, name)
        assert found is not None
        yield from leaves(found, (*path, name))


COMMANDS = {" ".join(path): command for path, command in leaves(cli) if " ".join(path) not in LONG}


def lines(name: str, command: click.Command) -> Iterator[list[str]]:
    """Command lines with one piece of nonsense each; what else must be there is there."""
    given = [one for one in command.params if one.name != "help" and not getattr(one, "is_flag", False)]
    yield [*name.split(), "--no-such-option"]
    for wrong in given:
        for nonsense in NONSENSE:
            options = [one for one in given if isinstance(one, click.Option) and (one is wrong or one.required)]
            arguments = [one for one in given if isinstance(one, click.Argument) and (one is wrong or one.required)]
            pairs = [part for one in options for part in (one.opts[0], nonsense if one is wrong else "abc")]
            yield [*name.split(), *pairs, "--", *(nonsense if one is wrong else "abc" for one in arguments)]


@pytest.mark.slow
@pytest.mark.parametrize("name", COMMANDS)
def test_nonsense_gets_one_line_and_a_status(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.delenv("ISTHMUS_ADMIN_TOKEN", raising=False)
    (tmp_path / "octets").write_bytes(bytes(range(256)))
    for line in lines(name, COMMANDS[name]):
        with pytest.raises(SystemExit) as ended:
            main(line)
        told = capfd.readouterr().err
        assert ended.value.code in (0, 1, 2), (line, told)
        assert "this is a bug" not in told and "Traceback" not in told, (line, told)
        if ended.value.code and name not in SEVERAL_LINES:
            assert told.count("\n") == 1, (line, told)
