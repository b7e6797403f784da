"""`type = "evm"`: what is said of its options, and which engine is made of them."""

from pathlib import Path

import pytest

from isthmus.connector.events import Now
from isthmus.errors import ConfigError
from isthmus.ledgers.evm import contract
from isthmus.ledgers.evm.fees import GWEI
from isthmus.node.config import Checked, parse_config
from isthmus.node.engines.kind import Surroundings
from isthmus.node.engines.kinds import KINDS
from isthmus.settlement.evm.channels import ChannelEngine
from isthmus.settlement.evm.engine import EvmEngine
from isthmus.settlement.evm.transfers import TransferEngine
from tests.ledgers.evm.anvil import a_key

FILE = """
address = "test.hub"
[accounts.bob]
asset = "ETH"
scale = 9
relation = "peer"
link = {{ type = "btp-client", url = "btp+wss://u:t@bob.example/btp" }}
limits = {{ receivable = "1", payable = "100" }}
[accounts.bob.settlement]
engine = "eth"
{account}
[settlement.eth]
type = "evm"
chain_id = 11155111
{engine}
"""
ENGINE = 'rpc = "https://node.example/v2/SECRET"\ndeposit = "0.5"\nkey_variable = "EVM_TEST_KEY"\n'

CHECKSUM = "the letters' cases are not this address's checksum: is a character wrong?"


def check(engine: str = ENGINE, account: str = "") -> Checked:
    return parse_config(FILE.format(engine=engine, account=account), Path("isthmus.toml"), {})


def make(monkeypatch: pytest.MonkeyPatch, engine: str = ENGINE, key: str | None = None) -> EvmEngine:
    checked = check(engine)
    assert checked.config is not None, checked.problems
    if key is not None:
        monkeypatch.setenv("EVM_TEST_KEY", key)
    surroundings = Surroundings(name="eth", data=Path("data"), now=lambda: Now(5, 7), random=lambda: 0.0)
    made = KINDS["evm"].make(checked.config.engines[0].options, surroundings)
    assert isinstance(made, EvmEngine)
    return made


def problems(engine: str = ENGINE, account: str = "") -> list[tuple[str, str]]:
    return [(each.key.removeprefix("settlement.eth."), each.problem) for each in check(engine, account).problems]


def test_amounts_are_in_coins_and_fees_in_gwei(monkeypatch: pytest.MonkeyPatch) -> None:
    engine = make(
        monkeypatch, ENGINE + 'claim_above = "0.1"\nfee_max = 30\nsettle_delay = "36 h"\n', a_key(1).secret.hex()
    )
    assert isinstance(engine, ChannelEngine)
    assert engine.key.address == a_key(1).address
    assert (engine.policy.deposit, engine.policy.claim_above) == (5 * 10**17, 10**17)
    assert (engine.policy.settle_delay, engine.policy.settle_delay_min) == (36 * 3_600, 12 * 3_600)
    assert engine.settings.fees.most == 30 * GWEI
    assert (engine.settings.contract, engine.settings.chain_id) == (contract.address(), 11_155_111)


def test_transfers_need_no_deposit(monkeypatch: pytest.MonkeyPatch) -> None:
    text = ENGINE.replace('deposit = "0.5"\n', 'method = "transfers"\n')
    assert isinstance(make(monkeypatch, text, a_key(1).secret.hex()), TransferEngine)


@pytest.mark.parametrize(
    "engine, account, expected",
    [
        (ENGINE.replace('deposit = "0.5"', ""), "", [("deposit", "missing")]),
        (ENGINE.replace("https:", "ftp:"), "", [("rpc", "not a URL with http or https")]),
        (ENGINE.replace("key_variable", "passphrase_variable"), "", [("key_file", "one key is needed")]),
        (ENGINE + "decimals = 0\n", "", [("deposit", "'0.5' is not an amount with 0 decimal places at most")]),
        (ENGINE + "fee_max = 3000\n", "", [("fee_max", "out of order")]),
        (ENGINE + 'settle_delay = "200 h"\n', "", [("settle_delay", "longer than settle_delay_max")]),
        (ENGINE + 'token = "0x12"\n', "", [("token", "not an address (0x and 40 hex digits)")]),
        (
            ENGINE,
            'peer_address = "0x5aAeb6053F3E94C9b9A09f33669435E7Ef1BeAeD"',
            [("accounts.bob.settlement.peer_address", CHECKSUM)],
        ),
    ],
)  # fmt: skip
def test_what_cannot_work_is_named(engine: str, account: str, expected: list[tuple[str, str]]) -> None:
    assert problems(engine, account) == expected


def test_no_key_no_engine_and_no_secret_in_what_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("EVM_TEST_KEY", raising=False)
    with pytest.raises(ConfigError, match=r"settlement\.eth\.key_file.*EVM_TEST_KEY"):
        make(monkeypatch)
    with pytest.raises(ConfigError) as caught:
        make(monkeypatch, key="77" * 33)
    assert "77" not in str(caught.value)
    assert "SECRET" not in repr(check())
