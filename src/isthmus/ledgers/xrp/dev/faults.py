"""Errors of requests, in the shape and with the words that clients of `rippled` know (xrpl.org "Error Formatting")."""

from enum import Enum
from typing import Any


class Code(Enum):
    """Token, number and sentence of each; without a number where the server that this one is shaped like has none."""

    ACCOUNT_MALFORMED = ("actMalformed", 35, "Account malformed.")
    ACCOUNT_NOT_FOUND = ("actNotFound", 19, "Account not found.")
    CHANNEL_AMOUNT_MALFORMED = ("channelAmtMalformed", 46, "Payment channel amount is malformed.")
    CHANNEL_MALFORMED = ("channelMalformed", 45, "Payment channel is malformed.")
    COMMAND_MISSING = ("missingCommand", None, "Missing command entry.")
    ENTRY_NOT_FOUND = ("entryNotFound", None, "Entry not found.")
    EXCESSIVE_RANGE = ("excessiveLgrRange", 78, "Ledger range exceeds 1000.")
    INTERNAL = ("internal", 73, "Internal error.")
    INVALID_PARAMS = ("invalidParams", 31, "Invalid parameters.")
    INVALID_RANGE = ("invalidLgrRange", 79, "Ledger range is invalid.")
    INVALID_TRANSACTION = ("invalidTransaction", None, "The transaction is invalid.")
    INVALID_VERSION = ("invalid_API_version", None, "API versions 1 and 2 are supported.")
    LEDGER_INDEX_MALFORMED = ("lgrIdxMalformed", 58, "Ledger index malformed.")
    LEDGER_NOT_FOUND = ("lgrNotFound", 21, "ledgerNotFound")
    NO_EVENTS = ("noEvents", 7, "Current transport does not support events.")
    NO_PERMISSION = ("noPermission", 6, "You don't have permission for this command.")
    NOT_SUPPORTED = ("notSupported", 75, "Operation not supported.")
    PUBLIC_KEY_MALFORMED = ("publicMalformed", 62, "Public key is malformed.")
    STREAM_MALFORMED = ("malformedStream", 71, "Stream malformed.")
    TRANSACTION_NOT_FOUND = ("txnNotFound", 29, "Transaction not found.")
    UNKNOWN_COMMAND = ("unknownCmd", 32, "Unknown method.")


class Fault(Exception):
    """Ends a request. `more` are fields beside the usual ones."""

    def __init__(self, code: Code, message: str | None = None, **more: Any) -> None:
        token, number, sentence = code.value
        super().__init__(f"{token}: {message or sentence}")
        self.fields: dict[str, Any] = {"error": token, "error_message": message or sentence, **more}
        if number is not None:
            self.fields["error_code"] = number


def invalid(name: str) -> Fault:
    """A parameter that can't be."""
    return Fault(Code.INVALID_PARAMS, f"Invalid field '{name}'.")


def missing(name: str) -> Fault:
    """A parameter that must be there."""
    return Fault(Code.INVALID_PARAMS, f"Missing field '{name}'.")
