"""ILDCP: a child asks its parent for its address and asset (RFC 0031); and the condition of all `peer.*` requests.

Requester: `encode_request`, then `decode_response` of the Fulfill's data. Responder: `is_request`, `encode_response`.
"""

from dataclasses import dataclass
from hashlib import sha256
from typing import Final, final

from isthmus.errors import CodecError
from isthmus.ilp.address import ADDRESS_BYTES_MAX, is_valid, parse_address
from isthmus.ilp.packet import Fulfill, Prepare, encode_fulfill, encode_prepare
from isthmus.oer import U8_MAX, encode_var_octets, read_uint, read_var_octets_max

CONFIG_DESTINATION: Final = "peer.config"

# Every request to `peer.*` carries this condition, and success is this fulfillment (PEER-1).
PEER_FULFILLMENT: Final = bytes(32)
PEER_CONDITION: Final = sha256(PEER_FULFILLMENT).digest()

# How long a request may take (PEER-3).
REQUEST_MS: Final = 60_000

# No limit in the RFC; ours keeps a parent from naming an asset with a novel.
ASSET_CODE_BYTES_MAX: Final = 255


@final
@dataclass(slots=True, frozen=True)
class IldcpResponse:
    """What the parent calls the child, and what their account counts in."""

    address: str
    asset_scale: int
    asset_code: str


def encode_request(expires_at: int) -> bytes:
    """The Prepare that asks; the caller puts the expiry `REQUEST_MS` from now."""
    return encode_prepare(Prepare(0, expires_at, PEER_CONDITION, CONFIG_DESTINATION, b""))


def is_request(prepare: Prepare) -> bool:
    """Whether the Prepare is a sound request: destination, condition, amount 0 (PEER-2). Its data is ignored."""
    return prepare.destination == CONFIG_DESTINATION and prepare.condition == PEER_CONDITION and prepare.amount == 0


def encode_response_data(response: IldcpResponse) -> bytes:
    """The Fulfill's data: address, then scale, then code (ILDCP-3; STREAM has code before scale)."""
    if not is_valid(response.address):
        raise ValueError(f"not an ILP address: {response.address[:80]!r}")
    if not 0 <= response.asset_scale <= U8_MAX:
        raise ValueError(f"an asset scale is 0 to {U8_MAX}, not {response.asset_scale}")
    code = response.asset_code.encode("utf-8")
    if len(code) > ASSET_CODE_BYTES_MAX:
        raise ValueError(f"an asset code has at most {ASSET_CODE_BYTES_MAX} bytes, not {len(code)}")
    return (
        encode_var_octets(response.address.encode("ascii")) + bytes((response.asset_scale,)) + encode_var_octets(code)
    )


def encode_response(response: IldcpResponse) -> bytes:
    """The whole answer, a Fulfill."""
    return encode_fulfill(Fulfill(PEER_FULFILLMENT, encode_response_data(response)))


def decode_response(data: bytes) -> IldcpResponse:
    """Read the data of the answering Fulfill; bytes after the code are ignored (ILDCP-6).

    The address is validated and need not lie under the parent's (ILDCP-5). The fulfillment is for the caller to
    check (PEER-4).
    """
    octets, at = read_var_octets_max(data, 0, "clientAddress", ADDRESS_BYTES_MAX)
    address = parse_address(octets, "clientAddress", 0)
    scale, code_at = read_uint(data, at, 1, "assetScale")
    code, _ = read_var_octets_max(data, code_at, "assetCode", ASSET_CODE_BYTES_MAX)
    try:
        return IldcpResponse(address, scale, code.decode("utf-8"))
    except UnicodeDecodeError:
        raise CodecError("assetCode", code_at, "not UTF-8") from None
