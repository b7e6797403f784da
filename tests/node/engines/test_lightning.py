"""`type = "lightning"` in a configuration: what can't work is said in one line, with its remedy."""

from pathlib import Path

import pytest

from isthmus.connector.events import AccountId, Now
from isthmus.errors import ConfigError
from isthmus.node.config import Checked, parse_config
from isthmus.node.engines.kind import Surroundings
from isthmus.node.engines.lightning import KIND
from isthmus.settlement.lightning.engine import LightningEngine
from isthmus.settlement.port import SettlingAccount

FILE = """
address = "test.hub"
[accounts.bob]
asset = "{asset}"
scale = 11
relation = "peer"
link = {{ type = "btp-client", url = "btp+wss://u:t@bob.example/btp" }}
limits = {{ receivable = "1" }}
[accounts.bob.settlement]
engine = "lightning"
{account}
[settlement.lightning]
type = "lightning"
url = "{url}"
certificate = "tls.cert"
macaroon = "isthmus.macaroon"
"""
NODE = "02" + "ab" * 32


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "tls.cert").write_text("none")
    (tmp_path / "isthmus.macaroon").write_bytes(b"m")
    return tmp_path


def check(folder: Path, *, asset: str = "BTC", account: str = "", url: str = "https://127.0.0.1:8080") -> Checked:
    return parse_config(FILE.format(asset=asset, account=account, url=url), folder / "isthmus.toml", {})


def test_a_whole_one_is_taken(folder: Path) -> None:
    checked = check(folder, account=f'node = "{NODE}"')
    assert checked.config is not None, checked.problems
    settlement = checked.config.account(AccountId("bob")).settlement
    assert settlement is not None and settlement.settings == {"node": NODE}


@pytest.mark.parametrize(
    "changes, words",
    [
        ({"asset": "ETH"}, "Lightning moves BTC only"),
        ({"account": 'node = "02"'}, "not a public key"),
        ({"url": "http://127.0.0.1:8080"}, "over TLS only"),
        ({"url": "nonsense"}, "url"),
    ],
)
def test_what_cant_work_is_told(folder: Path, changes: dict[str, str], words: str) -> None:
    checked = check(folder, **changes)
    assert checked.config is None
    assert words in " ".join(str(problem) for problem in checked.problems)


def test_files_that_are_none_keep_the_engine_from_starting(folder: Path) -> None:
    checked = check(folder)
    assert checked.config is not None
    (engine,) = checked.config.engines
    around = Surroundings(name="lightning", data=folder, now=lambda: Now(0, 0), random=lambda: 0.5)
    with pytest.raises(ConfigError, match="is no certificate"):
        KIND.make(engine.options, around)
    (folder / "isthmus.macaroon").write_bytes(b"")
    with pytest.raises(ConfigError, match="macaroon"):
        KIND.make(engine.options, around)


async def test_an_account_in_another_asset_is_no_account_of_lightning(folder: Path) -> None:
    from isthmus.ilp.asset import Asset
    from isthmus.ledgers.lightning.lnd import Lnd, LndSettings

    lnd = Lnd(LndSettings("https://127.0.0.1:1", folder / "tls.cert", folder / "isthmus.macaroon"))
    engine = LightningEngine(
        lnd, uses_keysend=False, fee_ppm_max=0, fee_msat_min=0, now_s=lambda: 0, random_bytes=bytes
    )
    with pytest.raises(ConfigError, match="moves BTC only"):
        await engine.accounts_changed([SettlingAccount(AccountId("bob"), Asset("USD", 2), {})])
    await engine.close()
