"""The running node that a command speaks to: where its admin API is, by which token, and what its answers mean.

A node says in `running.json` of its data folder where it listens. The folder is named by `--data`, or it is the one of
the node's configuration; the token comes from the environment or from that configuration.
"""

import json
import os
import tomllib
import urllib.parse
from collections.abc import Callable
from functools import wraps
from pathlib import Path
from typing import Any, Final

import click

from isthmus.cli.http_json import Json, NoAnswerError, RefusalError, exchange
from isthmus.errors import ConfigError, JournalError
from isthmus.node.config_template import FILE_NAME, variable

TOKEN_VARIABLE: Final = variable("admin")
RUNNING_NAME: Final = "running.json"
# Longer than the node itself waits for its journal.
ANSWER_S_MAX: Final = 15.0
# 65,535 accounts, or a million routes, of some hundred bytes each.
ANSWER_BYTES_MAX: Final = 256 * 1024 * 1024


class RefusedByNodeError(click.ClickException):
    """The node says no, for now: exit status 1. `status` is that of HTTP."""

    status: int


class MisusedNodeError(RefusedByNodeError):
    """What was asked makes no sense there."""

    exit_code = 2


class AdminApi:
    """One node's admin API."""

    def __init__(self, url: str, token: str | None) -> None:
        self.url: Final = url
        self._token: Final = token

    def call(
        self,
        method: str,
        path: str,
        body: Json | None = None,
        *,
        query: dict[str, str] | None = None,
        wait_s_max: float = ANSWER_S_MAX,
    ) -> Json:
        """What the node answers. Raises RefusedByNodeError, or JournalError without an answer."""
        url = self.url + urllib.parse.quote(path) + (f"?{urllib.parse.urlencode(query)}" if query else "")
        try:
            return exchange(
                method, url, body, token=self._token, wait_s_max=wait_s_max, bytes_max=ANSWER_BYTES_MAX, directly=True
            )
        except RefusalError as refusal:
            raise _refused(refusal) from None
        except NoAnswerError as error:
            raise JournalError(
                f"the node at {self.url} didn't answer: {error}; asking the same again is safe"
            ) from None


def _refused(refusal: RefusalError) -> RefusedByNodeError:
    status = refusal.status
    detail = f"it answers {status}, and gives no reason." if refusal.detail is None else refusal.detail
    if status in (401, 403):
        detail = f"{detail} Set ${TOKEN_VARIABLE}, which goes before the file's, or give --config."
    kind = MisusedNodeError if status in (400, 401, 403, 404, 405, 413) else RefusedByNodeError
    refused = kind(f"the node says: {detail}")
    refused.status = status
    return refused


def node_options(command: Callable[..., Any]) -> Callable[..., Any]:
    """`--config` and `--data` as they are given, for a command that may do without a running node."""
    for option in reversed(
        (
            click.option(
                "--config",
                type=click.Path(dir_okay=False, path_type=Path),
                help=f"The node's configuration, for its data folder and admin token.  [default: {FILE_NAME}]",
            ),
            click.option("--data", type=click.Path(file_okay=False, path_type=Path), help="The node's data folder."),
        )
    ):
        command = option(command)
    return command


def admin_options(command: Callable[..., Any]) -> Callable[..., Any]:
    """`--config` and `--data` for a command, which gets an `AdminApi` as `api`."""

    @node_options
    @wraps(command)
    def with_api(*args: Any, config: Path | None, data: Path | None, **options: Any) -> Any:
        return command(*args, api=find_api(config, data), **options)

    return with_api


def find_api(config: Path | None, data: Path | None) -> AdminApi:
    """The admin API of the node that these name. Raises ConfigError if no node runs there."""
    config, data, values = find_node(config, data)
    return AdminApi(_url(data), _token(config, values))


def find_node(config: Path | None, data: Path | None) -> tuple[Path | None, Path, Json]:
    """The configuration that these name, its data folder and what is written in it; whether the node runs or not."""
    if config is None and data is None and Path(FILE_NAME).is_file():
        config = Path(FILE_NAME)
    values = {} if config is None else _values(config)
    if data is None:
        if config is None:
            raise ConfigError(
                "--config", f"there is no {FILE_NAME} here", "Name the node's configuration, or its --data"
            )
        named = values.get("data", "data")
        data = config.parent / Path(named if isinstance(named, str) else "data").expanduser()
    return config, data, values


def is_running(data: Path) -> bool:
    """Whether a node runs on this data folder, or ran there until it was killed."""
    return (data / RUNNING_NAME).is_file()


def _values(config: Path) -> Json:
    """The file as it is written: what of it this command needs may be right where the rest is for the node's eyes."""
    try:
        return tomllib.loads(config.read_text())
    except OSError as error:
        raise ConfigError(
            f"--config {config}", error.strerror or "can't be read", "Name the node's TOML file"
        ) from None
    except ValueError as error:
        raise ConfigError(f"--config {config}", f"not TOML: {error}", "Name the node's TOML file") from None


def _url(data: Path) -> str:
    path = data / RUNNING_NAME
    try:
        listening = json.loads(path.read_text())["listening"]
    except FileNotFoundError:
        raise ConfigError(str(data), "no node runs there", "Start it (isthmus node run), or name its --data") from None
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise ConfigError(str(path), f"can't be read: {error}", "Name the folder of a running node") from None
    if not isinstance(listening, dict) or "admin" not in listening:
        raise ConfigError(str(data), "the node there has no admin API", "Add [admin] to its file, and restart it")
    return str(listening["admin"])


def _token(config: Path | None, values: Json) -> str | None:
    """The environment wins: it is what somebody set for just this."""
    from isthmus.node.config_reader import Bad, Source
    from isthmus.node.config_values import SecretText

    token = os.environ.get(TOKEN_VARIABLE, "").strip()
    admin = values.get("admin")
    if token or config is None or not isinstance(admin, dict) or "token" not in admin:
        return token or None
    try:
        return SecretText().read(admin["token"], Source(config.parent, {}, os.environ), ("admin", "token")).reveal()
    except Bad as bad:
        raise ConfigError("admin.token", bad.problem, bad.remedy) from None
