"""A node's configuration. Allowed is a configuration, or a list of `ConfigError`s; nothing is ever raised."""

from collections.abc import Iterator
from pathlib import Path
from typing import Final

from isthmus.node.config import parse_config
from isthmus.node.config_lines import locate
from isthmus.node.config_template import Keep, Template
from tests.fuzz.registry import Target

# Files that a text names are looked for here, where there is nothing.
NOWHERE: Final = Path("/nonexistent/isthmus.toml")
ENVIRONMENT: Final = {"ANN": "a token for ann"}
SMALL: Final = """\
address = "test.hub"
[accounts.ann]
asset = "USD"
scale = 9
relation = "child"
link = { type = "btp-server", token = "t" }
limits = { receivable = "10", payable = 5, hold = "10 s" }
[listeners]
btp = { listen = "127.0.0.1:7768" }
[routes]
"test.far" = "ann"
[rates]
"""


SOURCES: Final = """\
"EUR/XRP" = { source = "f" }
"USD/XRP" = { via = "EUR" }
[rates.sources]
f = { type = "file", path = "r.json", jump = "5 %" }
[rates.sources.x]
type = "http"
url = "https://x.example/p"
quotes = { "USD/EUR" = "a[0]" }
key = { env = "ANN" }
key_query = "k"
"""


SETTLEMENT: Final = """\
[settlement.till]
type = "rfc38"
url = "http://127.0.0.1:3000"
listen = "127.0.0.1:3001"
listen_token = { env = "ANN" }
timeout = "2 s"
[accounts.ann.settlement]
engine = "till"
threshold = "4"
target = "-1"
ahead_max = "2"
minimum = "0.5"
amount_max = "unlimited"
ledger_scale = 2
id = "a.n~n"
"""


def fuzz_config(data: bytes) -> None:
    try:
        text = data.decode()
    except UnicodeDecodeError:
        return  # said before it is parsed
    if "/dev" in text or "/proc" in text or "/sys" in text:
        return  # reading such a file may wait for ever, as whoever names it wants
    checked = parse_config(text, NOWHERE, ENVIRONMENT)
    if checked.config is None:
        assert checked.problems
        for problem in checked.problems:
            assert problem.line is None or 1 <= problem.line <= text.count("\n") + 1
            assert str(problem) and problem.remedy
        return
    assert not checked.problems
    assert parse_config(text, NOWHERE, ENVIRONMENT) == checked
    assert locate(text)


def seeds_config() -> Iterator[bytes]:
    for parent in (None, "btp+wss://:parent-token@up.example:7768"):
        for keep in (Keep.INLINE, Keep.ENVIRONMENT):
            tokens = {name: f"{name}-token" for name in ("parent", "child", "admin", "alice", "wallet")}
            template = Template(
                address=None if parent else "test.hub",
                asset="USD",
                scale=9,
                parent_url=parent,
                keep=keep,
                tokens=tokens,
            )
            lines = [line for line in template.text().splitlines() if line and not line.startswith("#")]
            yield "\n".join(lines).encode()
    yield SMALL.encode()
    yield f"{SMALL}{SETTLEMENT}".encode()
    yield f'{SMALL}"USD/EUR" = {{ source = "x", least = "1/3" }}\n{SOURCES}'.encode()


TARGETS: Final[dict[str, Target]] = {
    "config": Target(
        fuzz_config,
        seeds_config,
        (
            b'type = "http"',
            b'type = "btp-client"',
            b"[[accounts]]",
            b'"""',
            b"'''",
            b'{ env = "ANN" }',
            b"\n[limits]\n",
            b'relation = "peer"',
            b'"from parent"',
            b"[accounts.ann.settlement]\n",
            b'engine = "till"',
            b"1979-05-27",
            b"inf",
            b"0x",
            b"\xe2\x80\xa8",
        ),
        size_max=1_024,
    ),
}
