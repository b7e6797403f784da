"""ILP error codes, their names and what they ask of a sender (RFC 0027, "Error Codes")."""

from enum import StrEnum
from typing import Final


class ErrorCode(StrEnum):
    """The codes of RFC 0027. Others may come from peers: decoders pass any three ASCII characters (ILP-18)."""

    F00_BAD_REQUEST = "F00"
    F01_INVALID_PACKET = "F01"
    F02_UNREACHABLE = "F02"
    F03_INVALID_AMOUNT = "F03"
    F04_INSUFFICIENT_DESTINATION_AMOUNT = "F04"
    F05_WRONG_CONDITION = "F05"
    F06_UNEXPECTED_PAYMENT = "F06"
    F07_CANNOT_RECEIVE = "F07"
    F08_AMOUNT_TOO_LARGE = "F08"
    F99_APPLICATION_ERROR = "F99"
    T00_INTERNAL_ERROR = "T00"
    T01_PEER_UNREACHABLE = "T01"
    T02_PEER_BUSY = "T02"
    T03_CONNECTOR_BUSY = "T03"
    T04_INSUFFICIENT_LIQUIDITY = "T04"
    T05_RATE_LIMITED = "T05"
    T99_APPLICATION_ERROR = "T99"
    R00_TRANSFER_TIMED_OUT = "R00"
    R01_INSUFFICIENT_SOURCE_AMOUNT = "R01"
    R02_INSUFFICIENT_TIMEOUT = "R02"
    R99_APPLICATION_ERROR = "R99"


UNKNOWN_NAME: Final = "Unknown Error"

_NAMES: Final[dict[str, str]] = {code.value: code.name.split("_", 1)[1].replace("_", " ").title() for code in ErrorCode}


def code_name(code: str) -> str:
    """The name in the RFC's table, e.g. "Wrong Condition"; `UNKNOWN_NAME` for codes that are not in it."""
    return _NAMES.get(code, UNKNOWN_NAME)


def is_final(code: str) -> bool:
    """F: the same packet would fail again; don't retry it unchanged (ILP-19). Unknown codes go by their letter."""
    return code[:1] == "F"


def is_temporary(code: str) -> bool:
    """T: retry, possibly after a delay (ILP-19)."""
    return code[:1] == "T"


def is_relative(code: str) -> bool:
    """R: may be retried a bounded number of times with more margin (ILP-19)."""
    return code[:1] == "R"
