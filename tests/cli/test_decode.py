"""`isthmus decode`."""

import json
from base64 import b64encode, urlsafe_b64encode
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result
from hypothesis import given
from hypothesis import strategies as st

from isthmus.cli.decode import INPUT_BYTES_MAX, decode, draw, parse_secret, printable
from isthmus.cli.describe import describe
from isthmus.cli.main import main
from isthmus.errors import CodecError
from isthmus.ilp.ccp import SYNC, Route, RouteControl, RouteProp, RouteUpdate, encode_control, encode_update
from isthmus.ilp.ildcp import PEER_FULFILLMENT, IldcpResponse, encode_request, encode_response
from isthmus.ilp.packet import (
    Fulfill,
    Prepare,
    Reject,
    encode_amount_too_large,
    encode_fulfill,
    encode_prepare,
    encode_reject,
)
from isthmus.links.btp.codec import (
    MESSAGE,
    BtpError,
    BtpMessage,
    BtpResponse,
    BtpTransfer,
    ProtocolData,
    encode,
    encode_ilp,
)
from isthmus.stream.crypto import Keys
from isthmus.stream.packet import (
    ConnectionAssetDetails,
    StreamClose,
    StreamMoney,
    StreamPacket,
    StreamReceipt,
    encode_packet,
)
from isthmus.stream.receipt import Receipt, encode_receipt

SECRET = bytes(range(32))
KEYS = Keys(SECRET)
EXPIRES_AT = 1514132072279
PLAINTEXT = encode_packet(StreamPacket(12, 7, 990, [StreamMoney(1, 5), ConnectionAssetDetails("BTC", 8)]))
ENVELOPE = KEYS.encrypt(PLAINTEXT, bytes(12))
PREPARE = encode_prepare(Prepare(2**64 - 1, EXPIRES_AT, KEYS.condition(ENVELOPE), "example.bob.x", ENVELOPE))


def run(*arguments: str, stdin: bytes | None = None, env: dict[str, str] | None = None) -> Result:
    return CliRunner(env={"ISTHMUS_STREAM_SECRET": None, **(env or {})}).invoke(decode, arguments, input=stdin)


def as_json(*arguments: str, stdin: bytes | None = None, env: dict[str, str] | None = None) -> dict[str, Any]:
    result = run("--json", *arguments, stdin=stdin, env=env)
    assert result.exit_code == 0, result.output
    described = json.loads(result.stdout)
    assert isinstance(described, dict)
    return described


def test_a_prepare_is_shown_with_amounts_as_strings() -> None:
    """P-1."""
    assert as_json(PREPARE.hex()) == {
        "protocol": "ilp",
        "type": "prepare",
        "amount": "18446744073709551615",
        "expires_at": "2017-12-24T16:14:32.279Z",
        "condition": KEYS.condition(ENVELOPE).hex(),
        "destination": "example.bob.x",
        "data": ENVELOPE.hex(),
    }


def test_the_secret_opens_stream_data_and_says_if_the_condition_is_ours() -> None:
    described = as_json(PREPARE.hex(), "--secret", SECRET.hex())
    assert described["fulfillable"] is True
    assert described["stream"] == {
        "ilp_type": "prepare",
        "sequence": "7",
        "prepare_amount": "990",
        "frames": [
            {"type": "StreamMoney", "stream_id": "1", "shares": "5"},
            {"type": "ConnectionAssetDetails", "code": "BTC", "scale": 8},
        ],
    }
    probe = encode_prepare(Prepare(1, EXPIRES_AT, bytes(32), "example.bob.x", ENVELOPE))
    assert as_json(probe.hex(), "--secret", SECRET.hex())["fulfillable"] is False


def test_stream_in_replies_opens_too_and_a_wrong_type_is_a_problem() -> None:
    """STREAM-6."""
    receipt = encode_receipt(Receipt(bytes(16), 1, 500), SECRET)
    frames = StreamPacket(13, 7, 500, [StreamReceipt(1, receipt), StreamReceipt(1, b"?"), StreamClose(1, 9, "bye")])
    data = KEYS.encrypt(encode_packet(frames), bytes(12))
    described = as_json(encode_fulfill(Fulfill(SECRET, data)).hex(), "--secret", SECRET.hex())["stream"]
    assert described["frames"][0]["claims"] == {"nonce": "00" * 16, "stream_id": "1", "total_received": "500"}
    assert "not 58" in described["frames"][1]["problem"]
    assert described["frames"][2]["name"] == "ApplicationError"
    assert "problem" not in described
    reject = encode_reject(Reject("F99", "g.a", "", data))
    assert "type 13" in as_json(reject.hex(), "--secret", SECRET.hex())["stream"]["problem"]


def test_a_bare_envelope_needs_its_secret() -> None:
    described = as_json(ENVELOPE.hex(), "--secret", SECRET.hex())
    assert (described["protocol"], described["encrypted"], described["sequence"]) == ("stream", True, "7")
    result = run(ENVELOPE.hex(), "--secret", bytes(32).hex())
    assert result.exit_code == 2
    assert "not encrypted with this secret" in result.stderr
    assert "is it encrypted?" in run(ENVELOPE.hex()).stderr


def test_a_decrypted_stream_packet_is_recognised() -> None:
    described = as_json(PLAINTEXT.hex())
    assert (described["protocol"], described["encrypted"]) == ("stream", False)
    assert described["frames"][0] == {"type": "StreamMoney", "stream_id": "1", "shares": "5"}


def test_data_for_another_secret_is_a_problem_beside_the_packet() -> None:
    described = as_json(PREPARE.hex(), "--secret", bytes(32).hex())
    assert described["amount"] == "18446744073709551615"
    assert "not encrypted with this secret" in described["stream"]["problem"]


def test_btp_frames_show_the_ilp_packet_inside() -> None:
    """BTP-10."""
    described = as_json(encode_ilp(MESSAGE, 5, PREPARE).hex(), "--secret", SECRET.hex())
    assert (described["protocol"], described["type"], described["request_id"]) == ("btp", "message", 5)
    inner = described["protocol_data"][0]["ilp"]
    assert (inner["type"], inner["stream"]["sequence"]) == ("prepare", "7")


def test_other_btp_frames_are_shown_too() -> None:
    """BTP-3."""
    auth = BtpMessage(
        1, [ProtocolData("auth", 0, b"\x01"), ProtocolData("auth_token", 1, b"tok"), ProtocolData("x", 9, b"")]
    )
    assert as_json(encode(auth).hex())["protocol_data"] == [
        {"name": "auth", "content_type": "octet-stream", "data": "01"},
        {"name": "auth_token", "content_type": "text", "text": "tok"},
        {"name": "x", "content_type": "9", "data": ""},
    ]
    assert as_json(encode(BtpTransfer(1, 2**64 - 1, [])).hex())["amount"] == "18446744073709551615"
    assert as_json(encode(BtpResponse(1, [])).hex())["type"] == "response"
    error = as_json(encode(BtpError(1, "F00", "NotAcceptedError", EXPIRES_AT, b"why")).hex())
    assert (error["code"], error["triggered_at"], error["data"]) == ("F00", "2017-12-24T16:14:32.279Z", "why")
    broken = as_json(encode_ilp(MESSAGE, 5, b"\x0c\x00").hex())["protocol_data"][0]
    assert (broken["data"], broken["problem"][:4]) == ("0c00", "body")


def test_ildcp_is_recognised() -> None:
    """ILDCP-1, ILDCP-2."""
    answer = encode_response(IldcpResponse("example.client", 13, "XAM"))
    assert as_json(answer.hex())["ildcp"] == {"address": "example.client", "asset_scale": 13, "asset_code": "XAM"}
    assert as_json(encode_request(EXPIRES_AT).hex())["note"] == "the condition of requests to peer.*"
    assert "ildcp" not in as_json(encode_fulfill(Fulfill(PEER_FULFILLMENT, b"?")).hex())
    assert "note" in as_json(encode_fulfill(Fulfill(PEER_FULFILLMENT)).hex())


def test_route_controls_and_updates_are_recognised() -> None:
    """CCP-2, CCP-3, CCP-4."""
    table_id = bytes(range(16))
    control = as_json(encode_control(RouteControl(SYNC, table_id, 7, ("foo",)), EXPIRES_AT).hex())
    assert control["ccp"] == {
        "protocol": "ccp",
        "type": "control",
        "mode": "sync",
        "last_known_routing_table_id": table_id.hex(),
        "last_known_epoch": 7,
        "features": [{"name": "foo"}],
    }
    text = RouteProp(0, b"hi", is_optional=False, is_transitive=True, is_partial=False, is_utf8=True)
    octets = RouteProp(1, b"\xa0", is_optional=True, is_transitive=True, is_partial=True, is_utf8=False)
    route = Route("test.x", ("test.bob", "test.carol"), bytes(32), (text, octets))
    packet = encode_update(RouteUpdate(table_id, 9, 7, 9, 45_000, "test.bob", (route,), ("test.y",)), EXPIRES_AT)
    assert as_json(packet.hex())["ccp"] == {
        "protocol": "ccp",
        "type": "update",
        "routing_table_id": table_id.hex(),
        "current_epoch": 9,
        "from_epoch": 7,
        "to_epoch": 9,
        "hold_down_ms": 45_000,
        "speaker": "test.bob",
        "new_routes": [
            {
                "name": "test.x",
                "path": "test.bob test.carol",
                "auth": bytes(32).hex(),
                "props": [
                    {"name": "0", "optional": False, "transitive": True, "partial": False, "text": "hi"},
                    {"name": "1", "optional": True, "transitive": True, "partial": True, "data": "a0"},
                ],
            }
        ],
        "withdrawn": [{"name": "test.y"}],
    }
    shown = run(packet.hex()).stdout
    for line in ("CCP update", "hold down ms: 45000", "new routes (1)", "path: test.bob test.carol", "withdrawn (1)"):
        assert line in shown
    assert as_json(packet.replace(b"test.y", b"test y").hex())["ccp"]["problem"].startswith("1 of the routes")
    assert as_json(packet.replace(b"\x08test.bob", b"\x08test bob").hex())["ccp"] == {
        "problem": "speaker at byte 32: not an ILP address"
    }


def test_the_amounts_of_an_f08_are_shown() -> None:
    """ILP-15."""
    reject = encode_reject(Reject("F08", "g.a", "too big", encode_amount_too_large(2**63, 5)))
    described = as_json(reject.hex())
    assert described["name"] == "Amount Too Large"
    assert described["amount_too_large"] == {"received": "9223372036854775808", "maximum": "5"}
    assert "amount_too_large" not in as_json(encode_reject(Reject("F08", "g.a", "")).hex())


def test_the_tree_shows_what_the_json_shows() -> None:
    frame = encode_ilp(MESSAGE, 5, PREPARE)
    tree = run(frame.hex(), "--secret", SECRET.hex()).stdout
    for part in (
        "BTP message", "request id: 5", "ILP prepare", "amount: 18446744073709551615", "destination: example.bob.x",
        "fulfillable: yes", "STREAM", "StreamMoney", "shares: 5", f"({len(ENVELOPE)} bytes)",
    ):  # fmt: skip
        assert part in tree
    assert "ILDCP" in run(encode_response(IldcpResponse("g.a", 9, "USD")).hex()).stdout


def test_nothing_that_a_peer_wrote_reaches_the_terminal_as_a_command() -> None:
    """P-14: escape sequences, right-to-left marks and rich's own markup are text."""
    reject = encode_reject(Reject("F00", "g.a", "\x1b[31m[bold]red[/bold]\u202e\r\n"))
    tree = run(reject.hex()).stdout
    assert "\x1b" not in tree
    assert "\u202e" not in tree
    assert r"\x1b[31m[bold]red[/bold]\u202e\r\n" in tree
    assert "\x1b" not in run("--json", reject.hex()).stdout
    assert printable("grün €") == "grün €"


@pytest.mark.parametrize(
    "text",
    [
        PREPARE.hex(),
        PREPARE.hex().upper(),
        "0x" + PREPARE.hex(),
        PREPARE.hex(" "),
        PREPARE.hex(":"),
        f"\n{PREPARE.hex()}\n",
    ],
)
def test_hex_may_be_written_in_many_ways(text: str) -> None:
    assert as_json(text) == as_json("-", stdin=text.encode()) == as_json(PREPARE.hex())


def test_standard_input_may_be_raw_bytes() -> None:
    assert as_json("-", stdin=PREPARE) == as_json(PREPARE.hex())
    ascii_only = encode_reject(Reject("F00", "g.a", "plain text only"))
    assert ascii_only.isascii()
    assert as_json("-", stdin=ascii_only)["message"] == "plain text only"


@pytest.mark.parametrize(
    "text",
    [SECRET.hex(), b64encode(SECRET).decode(), urlsafe_b64encode(SECRET).decode().rstrip("="), f"{SECRET.hex()}\n"],
)
def test_a_secret_is_hex_or_base64_from_option_file_or_environment(text: str, tmp_path: Path) -> None:
    file = tmp_path / "secret"
    file.write_text(text)
    wanted = as_json(PREPARE.hex(), "--secret", SECRET.hex())
    assert as_json(PREPARE.hex(), "--secret", text) == wanted
    assert as_json(PREPARE.hex(), "--secret-file", str(file)) == wanted
    assert as_json(PREPARE.hex(), env={"ISTHMUS_STREAM_SECRET": text}) == wanted


def test_base64_of_both_alphabets_is_read() -> None:
    octets = bytes([0xFB, 0xFF, 0xBE] * 11)
    assert parse_secret(b64encode(octets).decode()) == octets == parse_secret(urlsafe_b64encode(octets).decode())


@pytest.mark.parametrize(
    "arguments, words",
    [
        (["zz"], "not hex"),
        (["0c4"], "not hex"),
        ([""], "no bytes"),
        (["ff00"], "does not begin with 255"),
        (["0c44"], "68 bytes announced, 0 left"),
        (["0600000001"], "the length is missing"),
        (["0100000001"], "the length is missing"),
        ([PREPARE.hex(), "--secret", "s3cr3t!"], "neither hex nor base64"),
        ([PREPARE.hex(), "--secret", ""], "neither hex nor base64"),
        ([PREPARE.hex(), "--secret", "00", "--secret-file", "x"], "either --secret or --secret-file"),
        ([PREPARE.hex(), "--secret-file", "/nonexistent/secret"], "can't read the secret"),
        (["0" * (INPUT_BYTES_MAX + 1)], "no packet is that long"),
        ([], "Missing argument"),
    ],
)
def test_bad_input_is_one_line_and_status_2(
    arguments: list[str], words: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as exit_info:
        main(["decode", *arguments])
    assert exit_info.value.code == 2
    printed = capsys.readouterr()
    assert printed.out == ""
    assert printed.err.count("\n") == 1
    assert words in printed.err
    assert "s3cr3t" not in printed.err


def test_a_stream_of_input_is_not_read_without_end() -> None:
    """P-9."""
    assert as_json("-", stdin=PREPARE.hex().encode().ljust(INPUT_BYTES_MAX))["type"] == "prepare"
    result = run("-", stdin=bytes(INPUT_BYTES_MAX + 1))
    assert result.exit_code == 2
    assert "more than" in result.stderr


def test_an_encrypted_packet_that_is_no_stream_packet_is_bad_input() -> None:
    for plaintext in (b"", b"\x02\x0c", b"\x01\x05\x01\x00\x01\x00\x01\x00"):
        result = run(KEYS.encrypt(plaintext, bytes(12)).hex(), "--secret", SECRET.hex())
        assert result.exit_code == 2
        assert "no packet" in result.stderr


def test_the_help_has_examples_and_warns_of_the_process_list() -> None:
    text = " ".join(run("--help").stdout.split())
    assert "isthmus decode --json -" in text
    assert "list of processes" in text
    assert "ISTHMUS_STREAM_SECRET" in text


@given(st.binary(max_size=120) | st.builds(encode_ilp, st.sampled_from([1, 6]), st.just(1), st.binary(max_size=90)))
def test_any_bytes_are_described_or_refused(data: bytes) -> None:
    """P-9."""
    for keys in (None, KEYS):
        try:
            described = describe(data, keys)
        except CodecError:
            continue
        draw(described)
        assert json.loads(json.dumps(described)) == described
