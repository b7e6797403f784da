"""`type = "xrp"` and `type = "xrp-payment"`: what is said of their options, and which engine is made of them."""

from pathlib import Path

import pytest
from xrpl.constants import CryptoAlgorithm
from xrpl.core.addresscodec import encode_seed

from isthmus.connector.events import Now
from isthmus.errors import ConfigError
from isthmus.node.config import Checked, parse_config
from isthmus.node.engine_config import load_engine
from isthmus.node.engines.kind import Surroundings
from isthmus.node.engines.kinds import KINDS
from isthmus.settlement.port import Engine
from isthmus.settlement.xrp.channels import ChannelEngine
from isthmus.settlement.xrp.payments import PaymentEngine

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
ADDRESS = "rHb9CJAWyB4rj91VRWn96DkukG4bwdtyTh"
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


@pytest.mark.parametrize("kind, more", [("xrp", ENGINE), ("xrp-payment", ENGINE.replace('deposit = "0.5"\n', ""))])
def test_an_account_in_another_asset_is_refused(kind: str, more: str) -> None:
    """It would be paid one for one."""
    text = FILE.format(engine=more, account="", kind=kind).replace('asset = "XRP"', 'asset = "USD"')
    (problem,) = parse_config(text, Path("isthmus.toml"), {}).problems
    assert (problem.key, problem.problem) == ("accounts.bob.settlement.engine", "the account counts in USD")


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
        (ENGINE.replace("https", "ftp"), "", ("rpc", "not a URL with http, https, ws or wss")),
        (ENGINE + 'rpc_check = "nonsense"\n', "", ("rpc_check", "not a URL with http, https, ws or wss")),
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


def test_payments_need_no_deposit_and_take_a_tag_with_an_address(monkeypatch: pytest.MonkeyPatch) -> None:
    plain = ENGINE.replace('deposit = "0.5"\n', "")
    assert isinstance(make(monkeypatch, plain, kind="xrp-payment"), PaymentEngine)
    assert problems(ENGINE, kind="xrp-payment")[0][0] == "deposit"  # no such key
    assert problems(plain, "peer_tag = 5\n", "xrp-payment") == [
        ("accounts.bob.settlement.peer_tag", "set without peer_address")
    ]
    account = f'peer_tag = 5\npeer_address = "{ADDRESS}"\n'
    checked = check(plain, account, "xrp-payment")
    assert checked.config is not None, checked.problems


@pytest.mark.parametrize("kind", ["xrp", "xrp-payment"])
def test_connectors_of_others_can_be_served(tmp_path: Path, kind: str) -> None:
    """`isthmus engine run`: any account of theirs, since peers tell where they are."""
    file = tmp_path / "engine.toml"
    deposit = 'deposit = "5"\n' if kind == "xrp" else ""
    file.write_text(
        'asset = "XRP"\nscale = 6\nlisten = "127.0.0.1:0"\n[connector]\nurl = "http://127.0.0.1:3001"\n'
        f'[engine]\nnetwork_id = 1\nrpc = "http://127.0.0.1:5005"\nkey_variable = "XRP_TEST_KEY"\n{deposit}'
    )
    found = load_engine(kind, file, {})
    assert found.others == {} and found.asset.scale == 6


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
