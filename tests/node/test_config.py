"""A node's configuration: what is read, and what is said about what can't be."""

import os
from fractions import Fraction
from pathlib import Path

import pytest

from isthmus.errors import ConfigError
from isthmus.node.config import Checked, check_config, load_config, parse_config
from isthmus.node.config_lines import VALUE_LINES_MAX, locate
from isthmus.node.config_model import (
    BearerAuth,
    BearerCheck,
    BtpClientLink,
    BtpServerLink,
    HttpLink,
    JwtAuth,
    NodeConfig,
    Relation,
)
from isthmus.node.tables import build_tables

KEY = "MDEyMzQ1Njc4OTAxMjM0NTY3ODkwMTIzNDU2Nzg5MDE="

WHOLE = f"""
address = "test.hub"
data = "books"

[accounts.up]
asset = "BTC"
scale = 8
relation = "parent"
link = {{ type = "btp-client", url = "btp+wss://u:t@up.example/btp" }}
limits = {{ receivable = "0.5", payable = "unlimited" }}

[accounts.ann]
asset = "USD"
scale = 9
relation = "child"
segment = "a"
spread = "10 bp"
[accounts.ann.link]
type = "btp-server"
token = {{ env = "ANN" }}
[accounts.ann.limits]
receivable = "10 USD"
payable = 5
packet = "0.000000001"
in_flight = "3"
per_second = "2"
packets_per_minute = 600
hold = "10 s"
margin = "500 ms"
open_legs = 10
echo = "1"

[accounts.bob]
asset = "EUR"
scale = 2
relation = "peer"
link.type = "http"
link.url = "https://bob.example/ilp"
link.outgoing = {{ auth = "jwt_hs256", secret = "{KEY}", subject = "hub" }}
link.incoming = {{ auth = "bearer", token_sha256 = "{"ab" * 32}", old_token_sha256 = "{"cd" * 32}" }}
limits.receivable = "0"

[routes]
"test.bob" = "bob"

[rates]
spread = "0.2 %"
"BTC/USD" = "64250.5"
"USD/EUR" = {{ rate = "1/3", spread = "5 bp" }}
"EUR/USD" = "2.9"

[listeners.btp]
listen = "127.0.0.1:7768"
[listeners.http]
listen = "[::1]:7769"

[admin]
listen = "127.0.0.1:7770"
token = "x"
"""


def read(text: str, folder: Path = Path("/nowhere"), **environment: str) -> Checked:
    return parse_config(text, folder / "isthmus.toml", {"ANN": "secret", **environment})


def whole(text: str = WHOLE) -> NodeConfig:
    checked = read(text)
    assert checked.problems == ()
    assert checked.config is not None
    return checked.config


def problems(text: str) -> list[tuple[str, int | None, str]]:
    return [(each.key, each.line, f"{each.problem}. {each.remedy}") for each in read(text).problems]


def changed(old: str, new: str) -> str:
    """The whole configuration with one thing changed."""
    assert WHOLE.count(old) == 1, old
    return WHOLE.replace(old, new)


# --- what is read ----------------------------------------------------------------------------------------------------


def test_amounts_are_base_units_of_their_account() -> None:
    """CONN-2."""
    ann = whole().accounts[1].limits
    assert (ann.receivable_max, ann.payable_max, ann.packet_amount_max) == (10 * 10**9, 5 * 10**9, 1)
    assert (ann.in_flight_max, ann.per_second_max, ann.echo_amount_max) == (3 * 10**9, 2 * 10**9, 10**9)
    assert (ann.packets_per_minute, ann.hold_ms_max, ann.margin_ms, ann.open_legs_max) == (600, 10_000, 500, 10)
    up = whole().accounts[0].limits
    assert (up.receivable_max, up.payable_max, up.in_flight_max) == (50_000_000, None, None)
    assert whole().accounts[2].limits.receivable_max == 0


def test_rates_are_exact_and_serve_both_ways() -> None:
    rates = {(pair.source, pair.destination): (pair.rate, pair.spread) for pair in whole().rates.pairs}
    assert rates["BTC", "USD"] == (Fraction(128501, 2), None)
    assert rates["USD", "EUR"] == (Fraction(1, 3), Fraction(5, 10_000))
    assert rates["EUR", "USD"] == (Fraction(29, 10), None)
    table = build_tables(whole()).rates
    assert (table.rate("USD", "BTC"), table.rate("EUR", "USD")) == (Fraction(2, 128501), Fraction(29, 10))
    assert whole().rates.spread == Fraction(2, 1000)
    assert whole().accounts[1].spread == Fraction(1, 1000)


def test_links_of_all_kinds() -> None:
    up, ann, bob = (account.link for account in whole().accounts)
    assert isinstance(up, BtpClientLink)
    assert isinstance(ann, BtpServerLink)
    assert ann.token_sha256 == "2bb80d537b1da3e38bd30361aa855686bde0eacd7162fef6a25fe97bf527a25b"
    assert isinstance(bob, HttpLink)
    assert isinstance(bob.outgoing, JwtAuth)
    assert bob.outgoing.algorithm == "HS256"
    assert bob.incoming == BearerCheck(token_sha256s=("ab" * 32, "cd" * 32))


def test_the_default_route_is_the_parent() -> None:
    assert whole().routes == (("test.bob", "bob"), ("", "up"))
    assert whole(changed('"test.bob" = "bob"', 'default = "bob"')).routes == (("", "bob"),)


def test_relations_and_segments() -> None:
    up, ann, bob = whole().accounts
    assert [each.relation for each in (up, ann, bob)] == [Relation.PARENT, Relation.CHILD, Relation.PEER]
    assert (ann.segment, bob.segment) == ("a", "bob")
    assert whole().parent == up
    assert whole().account(ann.id) is not None


def test_an_address_may_come_from_the_parent() -> None:
    """ILDCP-7."""
    assert whole(changed('"test.hub"', '"from parent"')).address is None


def test_paths_start_at_the_files_folder() -> None:
    assert whole().data == Path("/nowhere/books")
    assert whole(changed('data = "books"', "")).data == Path("/nowhere/data")


def test_a_secret_may_stand_in_a_file(tmp_path: Path) -> None:
    (tmp_path / "token").write_text("secret\n")
    checked = read(changed('{ env = "ANN" }', '{ file = "token" }'), tmp_path)
    assert checked.config is not None
    assert checked.config.accounts[1].link == whole().accounts[1].link


def test_secrets_are_not_shown() -> None:
    config = whole(changed('token = "x"', 'token = "hush"').replace("u:t@", "u:hush@").replace(KEY, KEY[:-2] + "I="))
    assert "hush" not in repr(config)
    assert KEY[:-2] not in repr(config)


def test_bearer_tokens_to_the_peer() -> None:
    old = f'{{ auth = "jwt_hs256", secret = "{KEY}", subject = "hub" }}'
    bob = whole(changed(old, '{ auth = "bearer", token = "t" }')).accounts[2].link
    assert isinstance(bob, HttpLink)
    assert isinstance(bob.outgoing, BearerAuth)
    assert bob.outgoing.token.reveal() == "t"


# --- what is said ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("old", "new", "key", "words"),
    [
        ("receivable = \"10 USD\"", 'recievable = "10"', "accounts.ann.limits.recievable", "Did you mean receivable?"),
        ("[admin]", "[amdin]\n[admin]", "amdin", "Did you mean admin?"),
        ('address = "test.hub"', "", "address", "missing"),
        ('"test.hub"', '"test"', "address", "not an ILP address"),
        ('"test.hub"', '"test.hub\\n"', "address", "not an ILP address"),
        ('"test.hub"', '"peer.hub"', "address", "peer.*"),
        ("scale = 9", "scale = 256", "accounts.ann.scale", "from 0 to 255"),
        ("scale = 9", "scale = true", "accounts.ann.scale", "an integer is needed, not a boolean"),
        ("scale = 9", 'scale = "9"', "accounts.ann.scale", "an integer is needed, not a string"),
        ('"10 USD"', "0.5", "accounts.ann.limits.receivable", "an amount is a string, not a number with a point"),
        ('"10 USD"', '"10 EUR"', "accounts.ann.limits.receivable", "the amount is in EUR, not in USD"),
        ('"10 USD"', '"-1"', "accounts.ann.limits.receivable", "not an amount"),
        ('"10 USD"', '"1e3"', "accounts.ann.limits.receivable", "not an amount"),
        ('"0.000000001"', '"0.0000000001"', "accounts.ann.limits.packet", "10 decimals"),
        ('"0.000000001"', '"18446744073.709551616"', "accounts.ann.limits.packet", "2^64"),
        ('"10 s"', '"10"', "accounts.ann.limits.hold", 'a number and a unit (ms, s, min, h): "30 s"'),
        ('"10 s"', '"10 h"', "accounts.ann.limits.hold", "from 1 s to 10 min"),
        ('"500 ms"', '"10 s"', "accounts.ann.limits.margin", "not below hold"),
        ('"10 bp"', '"10"', "accounts.ann.spread", 'per cent or basis points: "0.2 %" or "20 bp"'),
        ('"10 bp"', '"100 %"', "accounts.ann.spread", "would keep everything"),
        ('"64250.5"', "64250.5", 'rates."BTC/USD"', "a rate is a string"),
        ('"64250.5"', '"0"', 'rates."BTC/USD"', "not above zero"),
        ('"BTC/USD"', '"BTCUSD"', "rates.BTCUSD", "not a pair of assets"),
        ('"1/3"', '"1/0"', 'rates."USD/EUR".rate', "not above zero"),
        ('"test.bob" = "bob"', '"test.bob" = "rob"', 'routes."test.bob"', "there is no account 'rob'"),
        ('"test.bob" = "bob"', '"test..bob" = "bob"', 'routes."test..bob"', "not an address prefix"),
        ('"test.bob" = "bob"', '"peer.bob" = "bob"', 'routes."peer.bob"', "never forwarded"),
        ('"test.bob" = "bob"', '"g.bob" = "bob"', 'routes."g.bob"', "on a test network"),
        ('relation = "peer"', 'relation = "parent"', "accounts.bob.relation", "up is the parent already"),
        ('relation = "peer"', 'relation = "friend"', "accounts.bob.relation", '"parent" or "peer" or "child"'),
        ("[accounts.ann]", '[accounts."a.n"]', 'accounts."a.n"', "not a name for an account"),
        ('segment = "a"', 'segment = "a.b"', "accounts.ann.segment", "can't stand in an address"),
        ('type = "btp-server"', 'type = "btp"', "accounts.ann.link.type", '"btp-client" or "btp-server" or "http"'),
        ('type = "btp-server"', "type = []", "accounts.ann.link.type", "is not known here"),
        ('type = "btp-server"', "", "accounts.ann.link", "type is missing"),
        ('{ env = "ANN" }', '{ env = "NOPE" }', "accounts.ann.link.token", "variable NOPE is not set"),
        ('{ env = "ANN" }', '{ file = "nope" }', "accounts.ann.link.token", "No such file"),
        ('{ env = "ANN" }', '{ fiel = "nope" }', "accounts.ann.link.token", '{ file = "path" }'),
        ('token = { env = "ANN" }', "", "accounts.ann.link.token", "either token or token_sha256"),
        ('token = { env = "ANN" }', 'token_sha256 = "abc"', "accounts.ann.link.token_sha256", "64 hex digits"),
        ("btp+wss://u:t@up", "btp+ws://u:t@up", "accounts.up.link.url", "would show the token"),
        ("btp+wss://u:t@up", "btp+wss://up", "accounts.up.link.token", "missing"),
        ("https://bob", "http://bob", "accounts.bob.link.url", "in the clear"),
        (f'"{KEY}"', '"short"', "accounts.bob.link.outgoing", "can't sign with this key"),
        ('listen = "127.0.0.1:7768"', 'listen = "7768"', "listeners.btp.listen", "not an address and a port"),
        ('listen = "127.0.0.1:7768"', 'listen = "0.0.0.0:7768"', "listeners.btp.listen", "without TLS"),
        ('listen = "127.0.0.1:7768"', 'listen = "127.0.0.1:7770"', "admin.listen", "taken by listeners.btp"),
        ('[listeners.btp]\nlisten = "127.0.0.1:7768"', "", "accounts.ann.link", "nowhere to dial"),
        ('[listeners.http]\nlisten = "[::1]:7769"', "", "accounts.bob.link", "nowhere to send to"),
        ('token = "x"', 'token = "x"\ntoken_sha256 = "' + "a" * 64 + '"', "admin.token", "given beside"),
        ('listen = "127.0.0.1:7770"\ntoken = "x"', 'listen = "0.0.0.0:7770"', "admin.token", "others can reach"),
        ("[rates]", "rates = 3\n[rate]", "routes.rates", "a string is needed"),
    ],
)  # fmt: skip
def test_a_mistake_is_named_with_key_and_remedy(old: str, new: str, key: str, words: str) -> None:
    """ADDR-5, ADDR-6, CONN-14, P-2."""
    found = problems(changed(old, new))
    assert key in [each[0] for each in found]
    assert any(words in text for name, _, text in found if name == key), found


def test_all_problems_are_told_with_their_lines() -> None:
    text = '# a node\naddress = "nowhere"\n\n[accounts.bob]\nasset = "USD"\nscale = "nine"\nrelatoin = "peer"\n'
    assert [(key, line) for key, line, _ in problems(text)] == [
        ("address", 2),
        ("accounts.bob.relation", 4),
        ("accounts.bob.link", 4),
        ("accounts.bob.limits", 4),
        ("accounts.bob.scale", 6),
        ("accounts.bob.relatoin", 7),
    ]


def test_a_syntax_error_has_its_line() -> None:
    [(key, line, words)] = problems('address = "test.a"\ndata = nowhere\n')
    assert (key, line) == ("syntax", 2)
    assert "not TOML" in words


@pytest.mark.parametrize("digits", ["9" * 5_000, "0x" + "f" * 4_000])
def test_a_number_of_thousands_of_digits_is_a_problem(digits: str) -> None:
    """Python neither reads nor prints them, and raised on the way."""
    [(key, _, _)] = problems(f"scale = {digits}\n")
    assert key == "syntax"


def test_a_line_ends_at_a_line_break_only() -> None:
    """Not at U+2028 in a string: after one, values were cut in two, and reading the lines raised."""
    assert locate('a = "x\u2028y\x85z"\r\nb = 1\n') == {("a",): 1, ("b",): 2}


def test_a_value_of_more_lines_than_are_read_ends_the_search() -> None:
    lines = "\n".join(["a = 1", "b = [", *["1,"] * VALUE_LINES_MAX, "]", "c = 1"])
    assert locate(lines) == {("a",): 1}


def test_a_home_of_nobody_is_a_problem() -> None:
    [(key, _, words)] = problems(changed('data = "books"', 'data = "~nobody-of-this-name/x"'))
    assert key == "data"
    assert "names the home of nobody here" in words


def test_two_accounts_can_not_share_a_token() -> None:
    """ILP-7."""
    text = WHOLE + '\n[accounts.eve]\nasset = "USD"\nscale = 9\nrelation = "peer"\nlimits.receivable = "0"\n'
    text += 'link = { type = "btp-server", token = "secret" }\n'
    assert problems(text) == [("accounts.eve.link", 66, "ann has the same token. Give each account its own token.")]


def test_an_address_from_a_parent_needs_no_parent_yet() -> None:
    # One may come later, by `isthmus node join`.
    assert not problems('address = "from parent"')


def test_a_pair_without_a_rate_is_a_warning() -> None:
    checked = read(WHOLE)
    assert checked.warnings == ("no rate between BTC and EUR: packets from one to the other are refused",)


def test_a_file_that_can_not_be_read(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="No such file"):
        load_config(tmp_path / "isthmus.toml")
    (tmp_path / "isthmus.toml").write_bytes(b"\xff")
    with pytest.raises(ConfigError, match="UTF-8"):
        load_config(tmp_path / "isthmus.toml")
    (tmp_path / "isthmus.toml").write_bytes(b"#" * 5_000_000)
    with pytest.raises(ConfigError, match="too large"):
        load_config(tmp_path / "isthmus.toml")


def test_others_should_not_read_inline_secrets(tmp_path: Path) -> None:
    path = tmp_path / "isthmus.toml"
    path.write_text(WHOLE)
    os.chmod(path, 0o644)
    assert any("chmod 600" in each for each in check_config(path, {"ANN": "x"}).warnings)
    os.chmod(path, 0o600)
    assert not any("chmod 600" in each for each in check_config(path, {"ANN": "x"}).warnings)


def test_lines_of_keys_in_all_their_forms() -> None:
    text = '''# comment
a = 1
"b c" = """
x = 1
"""
d = [
  1, # [t]
  2,
]

[t.'u v']
e.f = 2
g = { h = 1, i = { j = 2 } }
[[list]]
k = 1
[[list]]
k = 2
'''
    assert locate(text) == {
        ("a",): 2,
        ("b c",): 3,
        ("d",): 6,
        ("t", "u v"): 11,
        ("t", "u v", "e"): 12,
        ("t", "u v", "e", "f"): 12,
        ("t", "u v", "g"): 13,
        ("t", "u v", "g", "h"): 13,
        ("t", "u v", "g", "i"): 13,
        ("t", "u v", "g", "i", "j"): 13,
        ("list", "0"): 14,
        ("list", "0", "k"): 15,
        ("list", "1"): 16,
        ("list", "1", "k"): 17,
    }
