"""Settlement in a configuration: engines of any kind, what accounts agree on, and what is said of mistakes."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from isthmus.connector.events import AccountId
from isthmus.connector.settling import NO_SETTLEMENT, SettleTerms
from isthmus.ilp.asset import Asset
from isthmus.node.config import Checked, parse_config
from isthmus.node.config_model import EngineSettings
from isthmus.node.config_settlement import settling_accounts
from isthmus.node.engines.kinds import KINDS
from isthmus.node.tables import build_tables
from isthmus.settlement.port import SettlingAccount
from tests.settlement.toy import KIND, KIND_NAME

FILE = """
address = "test.hub"
[accounts.bob]
asset = "USD"
scale = 9
relation = "peer"
link = {{ type = "btp-client", url = "btp+wss://u:t@bob.example/btp" }}
limits = {{ receivable = "1", payable = "100" }}
[accounts.bob.settlement]
{account}
[settlement.bank]
{engine}
"""
ENGINE = 'type = "toy"\nurl = "http://127.0.0.1:1"\nholder = "hub"'
ACCOUNT = 'engine = "bank"\nholder = "bob"\n'
BOB = AccountId("bob")


@pytest.fixture(autouse=True)
def toy() -> Iterator[None]:
    KINDS[KIND_NAME] = KIND
    yield
    del KINDS[KIND_NAME]


def check(account: str = ACCOUNT, engine: str = ENGINE) -> Checked:
    return parse_config(FILE.format(account=account, engine=engine), Path("isthmus.toml"), {})


def terms(account: str) -> SettleTerms:
    checked = check(ACCOUNT + account)
    assert checked.config is not None, checked.problems
    return build_tables(checked.config).accounts[BOB].settle


def problems(account: str = ACCOUNT, engine: str = ENGINE) -> list[tuple[str, int | None, str]]:
    return [(each.key, each.line, f"{each.problem}. {each.remedy}") for each in check(account, engine).problems]


def test_amounts_are_base_units_of_the_account() -> None:
    given = 'threshold = "10"\ntarget = "-0.5"\nahead_max = "2 USD"\nminimum = "0.1"\namount_max = 50\nledger_scale = 2'
    assert terms(given) == SettleTerms(
        engine="bank",
        threshold=10 * 10**9,
        target=-5 * 10**8,
        ahead_max=2 * 10**9,
        minimum=10**8,
        amount_max=50 * 10**9,
        ledger_scale=2,
    )


def test_what_holds_without_words() -> None:
    assert terms("") == SettleTerms(engine="bank", target=0, ahead_max=0, minimum=1)
    assert terms('amount_max = "unlimited"').amount_max is None
    assert terms('threshold = "1"\ntarget = "-3"').ahead_max == 3 * 10**9


def test_an_account_without_the_table_is_settled_by_hand() -> None:
    text = FILE.format(account="", engine=ENGINE).replace("[accounts.bob.settlement]", "")
    checked = parse_config(text, Path("isthmus.toml"), {})
    assert checked.config is not None
    assert build_tables(checked.config).accounts[BOB].settle == NO_SETTLEMENT
    assert settling_accounts(checked.config.accounts) == {}


def test_the_engine_gets_its_options_and_the_accounts() -> None:
    checked = check(ACCOUNT + 'color = "red"')
    assert checked.config is not None
    (engine,) = checked.config.engines
    assert engine == EngineSettings(name="bank", kind="toy", options={"url": "http://127.0.0.1:1", "holder": "hub"})
    assert settling_accounts(checked.config.accounts) == {
        "bank": [SettlingAccount(BOB, Asset("USD", 9), {"holder": "bob", "color": "red"})]
    }


@pytest.mark.parametrize(
    "account, expected",
    [
        ('engine = "blank"', ("accounts.bob.settlement.engine", 10, "there is no engine 'blank'. Engines: bank.")),
        ("", ("accounts.bob.settlement.engine", 9, "missing. Add it: The name of the engine")),
        (
            ACCOUNT + 'colour = "red"',
            ("accounts.bob.settlement.colour", 12, "no such key. Did you mean color?"),
        ),
        ('engine = "bank"', ("accounts.bob.settlement.holder", 9, "missing. Add it: Who the peer is there.")),
        (
            ACCOUNT + "ledger_scale = 256",
            ("accounts.bob.settlement.ledger_scale", 12, "256 is out of range"),
        ),
        (
            ACCOUNT + 'threshold = "0.0000000001"',
            ("accounts.bob.settlement.threshold", 12, "0.0000000001 has 10 decimals"),
        ),
        (
            ACCOUNT + 'threshold = "-1"',
            ("accounts.bob.settlement.threshold", 12, "-1000000000 is not above the target of 0"),
        ),
        (ACCOUNT + 'threshold = "--1"', ("accounts.bob.settlement.threshold", 12, "'-1' is not an amount")),
        (ACCOUNT + 'target = "--1"', ("accounts.bob.settlement.target", 12, "'-1' is not an amount")),
        (ACCOUNT + "target = 0.5", ("accounts.bob.settlement.target", 12, "an amount is a string")),
        (
            ACCOUNT + 'threshold = "101"',
            ("accounts.bob.settlement.threshold", 12, "101000000000 is above what we are willing to owe"),
        ),
        (
            ACCOUNT + 'threshold = "5"\ntarget = "5"',
            ("accounts.bob.settlement.threshold", 12, "5000000000 is not above the target"),
        ),
        (
            ACCOUNT + 'threshold = "5"\ntarget = "-5"\nahead_max = "4"',
            ("accounts.bob.settlement.ahead_max", 14, "the target pays ahead"),
        ),
        (ACCOUNT + 'minimum = "0"', ("accounts.bob.settlement.minimum", 12, "no settlement could be made")),
    ],
)
def test_what_an_account_cant_have(account: str, expected: tuple[str, int, str]) -> None:
    (found,) = problems(account)
    assert found[:2] == expected[:2]
    assert found[2].startswith(expected[2])


@pytest.mark.parametrize(
    "engine, expected",
    [
        ("", ("settlement.bank", "type is missing. Set type to")),
        ('type = "gold"', ("settlement.bank.type", "'gold' is not known here. Use")),
        ('type = "toy"\nurl = "x"', ("settlement.bank.holder", "missing.")),
        (ENGINE + "\nspeed = 1", ("settlement.bank.speed", "no such key.")),
    ],
)
def test_what_an_engine_cant_have(engine: str, expected: tuple[str, str]) -> None:
    """The account's table is not blamed for it."""
    (found,) = problems(engine=engine)
    assert found[0] == expected[0]
    assert found[2].startswith(expected[1])


def test_names_and_number_of_engines_are_bounded() -> None:
    many = "".join(f"[settlement.e{index}]\n{ENGINE}\n" for index in range(64))
    (found,) = problems(engine=f"{ENGINE}\n{many}")
    assert found[2] == "65 engines. Use 64 at most."
    (found,) = problems(engine=f'{ENGINE}\n[settlement."a b"]\n{ENGINE}')
    assert found[2].startswith("not a name for an engine")


def test_a_table_is_needed() -> None:
    text = FILE.format(account="", engine=ENGINE).replace("[accounts.bob.settlement]", "settlement = 3")
    (problem,) = parse_config(text, Path("isthmus.toml"), {}).problems
    assert (problem.key, problem.problem) == ("accounts.bob.settlement", "a table is needed, not an integer")
