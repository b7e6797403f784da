"""ILDCP's request and response (RFC 0031)."""

import json
from hashlib import sha256
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from isthmus.errors import CodecError
from isthmus.ilp.ildcp import (
    ASSET_CODE_BYTES_MAX,
    PEER_CONDITION,
    PEER_FULFILLMENT,
    IldcpResponse,
    decode_response,
    encode_request,
    encode_response,
    encode_response_data,
    is_request,
)
from isthmus.ilp.packet import Fulfill, Prepare, decode, decode_prepare
from isthmus.ilp.timestamp import decode_timestamp

VALUES = json.loads((Path(__file__).parents[1] / "vectors/codec-values.json").read_text())


def test_the_peer_condition_fits_the_peer_fulfillment() -> None:
    """PEER-1, X-3: what RFC 0038 prints is the hash of nothing and fits no fulfillment of 32 bytes."""
    assert bytes(32) == PEER_FULFILLMENT
    assert PEER_CONDITION.hex() == VALUES["peer_condition"]
    assert VALUES["condition_printed_in_rfc_38"] == sha256(b"").hexdigest() != PEER_CONDITION.hex()


def test_the_request_is_an_empty_prepare_to_peer_config() -> None:
    """ILDCP-1, PEER-1."""
    vector = VALUES["ildcp_request"]
    expires_at = decode_timestamp(vector["expires_at"].encode(), 0, "x")
    packet = encode_request(expires_at)
    assert packet.hex() == vector["packet"] + PEER_CONDITION.hex() + "0b706565722e636f6e666967" + "00"
    assert decode_prepare(packet) == Prepare(0, expires_at, PEER_CONDITION, "peer.config", b"")
    assert is_request(decode_prepare(packet))


@pytest.mark.parametrize(
    "prepare, sound",
    [
        (Prepare(0, 0, PEER_CONDITION, "peer.config", b"ignored"), True),
        (Prepare(1, 0, PEER_CONDITION, "peer.config"), False),
        (Prepare(0, 0, bytes(32), "peer.config"), False),
        (Prepare(0, 0, PEER_CONDITION, "peer.config.x"), False),
    ],
)
def test_a_request_must_be_sound_and_its_data_is_ignored(prepare: Prepare, sound: bool) -> None:
    """PEER-2, ILDCP-6."""
    assert is_request(prepare) is sound


def test_the_response_is_address_scale_code() -> None:
    """ILDCP-2, ILDCP-3."""
    vector = VALUES["ildcp_response"]
    response = IldcpResponse(vector["address"], vector["scale"], vector["code"])
    assert encode_response_data(response).hex() == vector["data"]
    assert decode_response(bytes.fromhex(vector["data"])) == response
    assert decode(encode_response(response)) == Fulfill(PEER_FULFILLMENT, bytes.fromhex(vector["data"]))


def test_bytes_after_the_code_are_ignored() -> None:
    """ILDCP-6."""
    data = bytes.fromhex(VALUES["ildcp_response"]["data"])
    assert decode_response(data + b"later") == decode_response(data)


@pytest.mark.parametrize(
    "octets, field",
    [
        (b"", "clientAddress"),
        (b"\x01g\x09\x03USD", "clientAddress"),
        (b"\x00\x09\x03USD", "clientAddress"),
        (b"\x03g.a", "assetScale"),
        (b"\x03g.a\x09", "assetCode"),
        (b"\x03g.a\x09\x03US", "assetCode"),
        (b"\x03g.a\x09\x02\xc3\x28", "assetCode"),
    ],
)
def test_a_response_that_can_not_be_used_is_refused(octets: bytes, field: str) -> None:
    """ILDCP-5: the client address above all."""
    with pytest.raises(CodecError) as error:
        decode_response(octets)
    assert error.value.field == field


def test_an_asset_code_is_bounded() -> None:
    """ILDCP-2."""
    longest = IldcpResponse("g.a", 0, "X" * ASSET_CODE_BYTES_MAX)
    assert decode_response(encode_response_data(longest)) == longest
    for response in (
        IldcpResponse("g.a", 0, "X" * (ASSET_CODE_BYTES_MAX + 1)),
        IldcpResponse("g.a", 256, "X"),
        IldcpResponse("g", 0, "X"),
    ):
        with pytest.raises(ValueError, match=r"at most|scale|address"):
            encode_response_data(response)
    with pytest.raises(CodecError, match="more than 255"):
        decode_response(b"\x03g.a\x09\x82\x01\x00" + b"X" * 256)


@given(st.binary(max_size=80))
def test_any_bytes_give_a_response_or_a_codec_error(data: bytes) -> None:
    """ILDCP-2."""
    try:
        response = decode_response(data)
    except CodecError:
        return
    assert data.startswith(encode_response_data(response))
