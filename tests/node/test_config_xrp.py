"""`type = "xrp"` and `type = "xrp-payment"`: what is said of their options, and which engine is made of them."""

from pathlib import Path

import pytest
from xrpl.constants import CryptoAlgorithm
from xrpl.core.addresscodec import encode_seed

from isthmus.connector.events import Now
from isthmus.errors import ConfigError
from isthmus.node.config import Checked, parse_config
from isthmus.node.engines.kind import Surroundings
from isthmus.node.engines.kinds import KINDS
from isthmus.settlement.port import Engine
from isthmus.settlement.xrp.channels import ChannelEngine

FILE = """
address = "test.hub"
[accounts.bob]
asset = "XRP"
scale = 9
relation = "peer"
link = {{ type = "btp-client", url = "btp+wss://u:t@bob.example/btp" }}
limits = {{ receivable = "1", payable = "100" }}
[accounts.bob.settlement]
engine = "till"
{account}
[settlement.till]
type = "{kind}"
network_id = 1
{engine}
"""
ENGINE = 'rpc = "https://s.example/SECRET"\ndeposit = "0.5"\nkey_variable = "XRP_TEST_KEY"\n'
SEED = encode_seed(bytes(16), CryptoAlgorithm.ED25519)


def check(engine: str = ENGINE, account: str = "", kind: str = "xrp") -> Checked:
    text = FILE.format(engine=engine, account=account, kind=kind)
    return parse_config(text, Path("isthmus.toml"), {})


def make(monkeypatch: pytest.MonkeyPatch, engine: str = ENGINE, key: str | None = SEED, kind: str = "xrp") -> Engine:
    checked = check(engine, kind=kind)
    assert checked.config is not None, checked.problems
    if key is not None:
        monkeypatch.setenv("XRP_TEST_KEY", key)
    surroundings = Surroundings(name="till", data=Path("data"), now=lambda: Now(5, 7), random=lambda: 0.0)
    return KINDS[kind].make(checked.config.engines[0].options, surroundings)


def problems(engine: str = ENGINE, account: str = "", kind: str = "xrp") -> list[tuple[str, str]]:
    found = check(engine, account, kind).problems
    return [(each.key.removeprefix("settlement.till."), each.problem) for each in found]


def test_amounts_are_in_xrp_and_fees_in_drops(monkeypatch: pytest.MonkeyPatch) -> None:
    more = (
        'claim_above = "2.000001"\nreserve = "1 XRP"\nfee_max = 99\nsettle_delay = "2 h"\nsettle_delay_min = "90 min"\n'
    )
    engine = make(monkeypatch, ENGINE + more)
    assert isinstance(engine, ChannelEngine)
    policy = engine.policy
    assert (policy.deposit, policy.claim_above, policy.reserve) == (500_000, 2_000_001, 1_000_000)
    assert (policy.settle_delay, policy.settle_delay_min) == (7_200, 5_400)
    assert (engine.settings.network_id, engine.settings.fee_max) == (1, 99)
    assert engine.settings.urls == ("https://s.example/SECRET",)


@pytest.mark.parametrize(
    ("engine", "account", "expected"),
    [
        (ENGINE.replace("https", "wss"), "", ("rpc", "not a URL with http or https")),
        (ENGINE + 'rpc_check = "nonsense"\n', "", ("rpc_check", "not a URL with http or https")),
        (ENGINE.replace("key_variable", "#"), "", ("key_file", "one key is needed")),
        (
            ENGINE.replace('"0.5"', '"0.0000001"'),
            "",
            ("deposit", "'0.0000001' is not an amount with 6 decimal places at most"),
        ),
        (ENGINE.replace("deposit", "#"), "", ("deposit", "missing")),
        (ENGINE + "fee_max = 2000000\n", "", ("fee_max", "above fee_max_urgent")),
        (
            ENGINE,
            'peer_address = "rHb9CJAWyB4rj91VRWn96DkukG4bwdtyTX"\n',
            ("accounts.bob.settlement.peer_address", "not a classic address, or a character is wrong"),
        ),
    ],
)
def test_mistakes_are_named(engine: str, account: str, expected: tuple[str, str]) -> None:
    assert problems(engine, account) == [expected]


def test_the_seed_is_needed_and_never_repeated(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(ConfigError, match="the environment has no XRP_TEST_KEY"):
        make(monkeypatch, key=None)
    with pytest.raises(ConfigError, match="no seed of the XRP Ledger") as caught:
        make(monkeypatch, key="sEdNotASeedAtAll")
    assert "NotASeed" not in str(caught.value)


def test_a_file_that_others_can_read_is_refused(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    file = tmp_path / "seed"
    file.write_text(SEED)
    file.chmod(0o640)
    engine = ENGINE.replace('key_variable = "XRP_TEST_KEY"', f'key_file = "{file}"')
    with pytest.raises(ConfigError, match="can be read by others"):
        make(monkeypatch, engine)
    file.chmod(0o600)
    assert isinstance(make(monkeypatch, engine), ChannelEngine)
