"""What a node asked the operating system for, from a trace by strace: what it synced, and what it sent after that.

A batch is durable once a `fdatasync` of the journal's log has returned that began after the batch's envelope was
written there. Every BTP frame that rests on a batch must be sent after that; the trace has both in one order.
"""

import re
import struct
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from isthmus.ilp.packet import FULFILL, PREPARE, REJECT
from isthmus.links.btp import codec

CALLS: Final = "fdatasync,fsync,sendto,sendmsg,write,writev,pwrite64,pwritev"
BYTES_MAX: Final = 4_000_000  # of one call: more than any batch

_LINE: Final = re.compile(r"^(\d+) +(.*)$")
_CALL: Final = re.compile(r"^(\w+)\((\d+)<(.*?)>(?=[,) ])(.*)$")
_RESUMED: Final = re.compile(r"^<\.\.\. (\w+) resumed>(.*)$")
_STRING: Final = re.compile(r'"((?:\\x[0-9a-f]{2})*)"')
_RESULT: Final = re.compile(r"\) += (-?\d+)")
_UNFINISHED: Final = "<unfinished ...>"
_ENVELOPE: Final = struct.Struct(">B16sIQ")


def command(trace: Path) -> tuple[str, ...]:
    """Before the command that is to be traced. With -D the traced process keeps its place, signals and status."""
    calls = f"trace={CALLS}"
    return ("strace", "-D", "-f", "-yy", "-xx", "-s", str(BYTES_MAX), "-e", calls, "-o", str(trace), "--")


@dataclass(slots=True)
class Call:
    """One system call: the places in the trace where it began and where it returned."""

    name: str
    file: str  # a path, or "TCP:[…]"
    data: bytes
    begins: int
    returns: int = -1
    result: int = -1


@dataclass(slots=True)
class Trace:
    """The calls that matter, in the order of their beginning."""

    calls: list[Call] = field(default_factory=list)

    @classmethod
    def read(cls, path: Path) -> "Trace":
        trace = cls()
        waiting: dict[str, Call] = {}
        for at, line in enumerate(path.read_text().splitlines()):
            found = _LINE.match(line)
            if found is None:
                continue
            thread, text = found.groups()
            resumed = _RESUMED.match(text)
            if resumed is not None:
                call = waiting.pop(thread, None)
                if call is not None:
                    _finish(call, resumed[2], at)
                continue
            begun = _CALL.match(text)
            if begun is None:
                continue
            call = Call(begun[1], _plain(begun[3]), _strings(begun[4]), at)
            trace.calls.append(call)
            if text.endswith(_UNFINISHED):
                waiting[thread] = call
            else:
                _finish(call, begun[4], at)
        return trace

    def durable_at(self, log: str, journal_id: bytes) -> dict[int, int]:
        """For each batch the place where the sync that covers it has returned. Batches without one are missing."""
        pattern = re.compile(re.escape(_ENVELOPE.pack(1, journal_id, 0, 0)[:-8]) + rb"(.{8})", re.DOTALL)
        written: dict[int, int] = {}
        durable: dict[int, int] = {}
        for call in self.calls:
            if not call.file.endswith(log):
                continue
            if call.name in ("fdatasync", "fsync"):
                for sequence, at in written.items():
                    if at < call.begins and call.result == 0 and sequence not in durable:
                        durable[sequence] = call.returns
                continue
            for found in pattern.finditer(call.data):
                written.setdefault(int.from_bytes(found[1], "big"), call.returns)
        return durable

    def frames(self) -> Iterator[tuple[int, int, bytes]]:
        """Every ILP packet that was sent in a BTP frame: where the send began, BTP request id, packet."""
        streams: dict[str, _Stream] = {}
        for call in self.calls:
            if call.file.startswith("TCP") and call.data and call.result > 0:
                stream = streams.setdefault(call.file, _Stream())
                yield from stream.sent(call.begins, call.data[: call.result])


class _Stream:
    """What one connection carried from a WebSocket server to its client: an HTTP answer, then unmasked frames."""

    def __init__(self) -> None:
        self._data = b""
        self._starts: list[tuple[int, int]] = []  # offset in the stream, place of the send that has it
        self._offset = 0
        self._is_open = False

    def sent(self, at: int, data: bytes) -> Iterator[tuple[int, int, bytes]]:
        self._starts.append((self._offset + len(self._data), at))
        self._data += data
        if not self._is_open:
            _, end, rest = self._data.partition(b"\r\n\r\n")
            if not end:
                return
            self._is_open = True
            self._take(len(self._data) - len(rest))
        while (length := self._frame()) is not None:
            head, payload = length
            begun = max(place for offset, place in self._starts if offset <= self._offset)
            message = self._data[head : head + payload]
            self._take(head + payload)
            decoded = codec.decode(message) if message and message[0] in (codec.MESSAGE, codec.RESPONSE) else None
            if decoded is not None:
                for entry in decoded.protocol_data:
                    if entry.name == "ilp" and entry.data and entry.data[0] in (PREPARE, FULFILL, REJECT):
                        yield begun, decoded.request_id, entry.data

    def _frame(self) -> tuple[int, int] | None:
        """Bytes of head and payload of the next frame, if it is whole."""
        data = self._data
        if len(data) < 2:
            return None
        head, length = 2, data[1] & 0x7F
        if length >= 126:
            size = 2 if length == 126 else 8
            head += size
            length = int.from_bytes(data[2:head], "big")
        return (head, length) if len(data) >= head + length else None

    def _take(self, count: int) -> None:
        self._data = self._data[count:]
        self._offset += count


def _finish(call: Call, text: str, at: int) -> None:
    call.returns = at
    result = _RESULT.search(text)
    if result is not None:
        call.result = int(result[1])


def _strings(text: str) -> bytes:
    return b"".join(bytes.fromhex(found.replace("\\x", "")) for found in _STRING.findall(text))


def _plain(text: str) -> str:
    return re.sub(r"\\x([0-9a-f]{2})", lambda found: chr(int(found[1], 16)), text)
