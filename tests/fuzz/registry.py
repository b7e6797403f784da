"""Which fuzz targets there are, and where they live. Importing this imports none of them.

A target is a function of bytes. It returns if the outcome is an allowed one, whatever that is for its decoder, and
raises for a finding. So the same function serves the fuzzer and the plain test that replays what was found.
"""

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from typing import Final, final

HERE: Final = Path(__file__).parent
CORPUS: Final = HERE / "corpus"  # NAME.txt: one input a line, in hex
FOUND: Final = HERE / "found"  # NAME/…: inputs that once failed, as they are

# A decoder gets a second for one input, and a history of many events ten: both are far above what a busy machine takes.
CODEC_SECONDS_MAX: Final = 2
STATEFUL_SECONDS_MAX: Final = 10
RSS_MB_MAX: Final = 1_024

MODULES: Final[dict[str, str]] = {
    "oer": "codecs",
    "ilp": "codecs",
    "address": "codecs",
    "time": "codecs",
    "ildcp": "codecs",
    "outcomes": "codecs",
    "ccp": "codecs",
    "btp": "codecs",
    "stream": "stream_codecs",
    "stream-address": "stream_codecs",
    "record": "journal",
    "state": "journal",
    "http": "web",
    "auth": "web",
    "spsp": "web",
    "pointer": "web",
    "url": "web",
    "config": "settings",
    "rates": "prices",
    "quantity": "settlement",
    "evm-messages": "settlement",
    "bank-messages": "settlement",
    "bank-answers": "settlement",
    "xrp-messages": "settlement",
    "xrp": "xrp",
    "xrp-api": "xrp",
    "node": "node",
    "stream-pair": "stream_pair",
}


# What the whole machines call all the time, and targets of its own watch: here it would only cost speed.
UNWATCHED: Final[dict[str, tuple[str, ...]]] = {
    "node": (
        "isthmus.errors",
        "isthmus.oer",
        "isthmus.ilp",
        "isthmus.links.btp.codec",
        "isthmus.links.btp.generalized_time",
        "isthmus.connector.books",
        "isthmus.connector.record",
        "isthmus.connector.replay",
        "isthmus.connector.state",
        "isthmus.connector.summary",
        "isthmus.connector.tables",
    ),
    "stream-pair": ("isthmus.errors", "isthmus.oer", "isthmus.ilp", "isthmus.stream.packet", "isthmus.stream.crypto"),
}


@final
@dataclass(slots=True, frozen=True)
class Target:
    """One target. `tokens` are byte strings worth inserting; `seeds` are what a fresh corpus starts from."""

    run: Callable[[bytes], None]
    seeds: Callable[[], Iterable[bytes]]
    tokens: tuple[bytes, ...] = ()
    size_max: int = 2_048
    stateful: bool = False

    @property
    def seconds_max(self) -> int:
        return STATEFUL_SECONDS_MAX if self.stateful else CODEC_SECONDS_MAX


def load(name: str) -> Target:
    """The target with this name; its module is imported now, so that a fuzzer can watch the import."""
    targets: dict[str, Target] = import_module(f"tests.fuzz.targets.{MODULES[name]}").TARGETS
    return targets[name]


def read_corpus(name: str) -> list[bytes]:
    """The corpus that is kept in the repository."""
    path = CORPUS / f"{name}.txt"
    return [bytes.fromhex(line) for line in path.read_text().splitlines()] if path.exists() else []


def write_corpus(name: str, inputs: Iterable[bytes]) -> None:
    """Keep these inputs, shortest first."""
    CORPUS.mkdir(exist_ok=True)
    lines = [each.hex() for each in sorted(set(inputs), key=lambda each: (len(each), each))]
    (CORPUS / f"{name}.txt").write_text("".join(f"{line}\n" for line in lines))


def read_found(name: str) -> dict[str, bytes]:
    """Inputs that once failed, by the name of their file."""
    folder = FOUND / name
    return {path.name: path.read_bytes() for path in sorted(folder.iterdir())} if folder.is_dir() else {}
