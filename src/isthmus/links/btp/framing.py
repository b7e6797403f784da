"""WebSocket frames of a whole batch in one buffer (RFC 6455 §5.2), so that a batch is one write.

One system call per frame is what a forwarding node can't afford: joining the frames of a batch is worth 2 to 5 times
(docs/adr/0002-websocket-library.md). Reading is left to the library.
"""

from collections.abc import Callable
from typing import Final

BINARY: Final = 2
TEXT: Final = 1
CONTINUATION: Final = 0
CLOSE: Final = 8
PING: Final = 9
PONG: Final = 10

CONTROL_BYTES_MAX: Final = 125
_REASON_BYTES_MAX: Final = CONTROL_BYTES_MAX - 2
_MASKED: Final = 0x80
_FIN: Final = 0x80

# Nearly every frame is shorter than this: its head is looked up.
_KNOWN: Final = 1_024


def _head(opcode: int, size: int, mask_bit: int) -> bytes:
    if size < 126:
        return bytes((_FIN | opcode, mask_bit | size))
    if size < 1 << 16:
        return bytes((_FIN | opcode, mask_bit | 126)) + size.to_bytes(2, "big")
    return bytes((_FIN | opcode, mask_bit | 127)) + size.to_bytes(8, "big")


_PLAIN_HEADS: Final = tuple(_head(BINARY, size, 0) for size in range(_KNOWN))
_MASKED_HEADS: Final = tuple(_head(BINARY, size, _MASKED) for size in range(_KNOWN))


def xor_mask(data: bytes, mask: bytes) -> bytes:
    """Mask or unmask a payload without the C helper."""
    size = len(data)
    repeated = (mask * ((size >> 2) + 1))[:size]
    return (int.from_bytes(data, "little") ^ int.from_bytes(repeated, "little")).to_bytes(size, "little")


def _masker() -> Callable[[bytes, bytes], bytes]:
    # The C helper takes 0.09 µs for 200 bytes, the big numbers 0.7. The pure build of `websockets` has none.
    try:
        from websockets.speedups import apply_mask
    except ImportError:
        return xor_mask
    return apply_mask


apply_mask: Final = _masker()


def join_plain(messages: list[bytes]) -> bytes:
    """Binary messages as a server sends them."""
    parts: list[bytes] = []
    for message in messages:
        size = len(message)
        parts.append(_PLAIN_HEADS[size] if size < _KNOWN else _head(BINARY, size, 0))
        parts.append(message)
    return b"".join(parts)


def join_masked(messages: list[bytes], entropy: Callable[[int], bytes]) -> bytes:
    """Binary messages as a client sends them, each under a fresh mask (RFC 6455 §5.3)."""
    masks = entropy(4 * len(messages))
    parts: list[bytes] = []
    at = 0
    for message in messages:
        size = len(message)
        mask = masks[at : at + 4]
        at += 4
        parts.append(_MASKED_HEADS[size] if size < _KNOWN else _head(BINARY, size, _MASKED))
        parts.append(mask)
        parts.append(apply_mask(message, mask))
    return b"".join(parts)


def control(opcode: int, payload: bytes, mask: bytes | None) -> bytes:
    """A ping, pong or close frame; `mask` is None on the server's side."""
    assert len(payload) <= CONTROL_BYTES_MAX
    if mask is None:
        return _head(opcode, len(payload), 0) + payload
    return _head(opcode, len(payload), _MASKED) + mask + apply_mask(payload, mask)


def close_payload(code: int, reason: str) -> bytes:
    """Status and reason; the reason is cut on a character boundary."""
    words = reason.encode()[:_REASON_BYTES_MAX].decode("utf-8", "ignore").encode()
    return code.to_bytes(2, "big") + words
