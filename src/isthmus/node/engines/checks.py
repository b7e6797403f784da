"""What engines' options have in common: amounts of a ledger, and URLs."""

from urllib.parse import urlsplit

from isthmus.node.config_lines import KeyPath
from isthmus.node.config_reader import Source


def is_http(url: str) -> bool:
    """Whether it is a URL with http or https and a host."""
    return is_url_of(url, ("http", "https"))


def is_url_of(url: str, schemes: tuple[str, ...]) -> bool:
    """Whether it is a URL with one of these schemes and a host."""
    try:
        parts = urlsplit(url.strip())
    except ValueError:
        return False
    return parts.scheme in schemes and bool(parts.hostname)


def check_amount(source: Source, path: KeyPath, text: str | None, decimals: int) -> None:
    """Report an amount that the ledger can't express."""
    if text is not None:
        try:
            units_of(text, decimals)
        except ValueError as error:
            source.problem(path, str(error), f"Use {decimals} decimal places at most.")


def units_of(text: str, decimals: int) -> int:
    """In the ledger's units. Its amounts are larger than an account's, and may have a code that only people read."""
    number = text.split(maxsplit=1)[0].replace("_", "")
    whole, _, fraction = number.partition(".")
    if len(fraction.rstrip("0")) > decimals or not (whole + fraction).isdigit():
        raise ValueError(f"{text!r} is not an amount with {decimals} decimal places at most")
    unit: int = 10**decimals
    return int(whole or "0") * unit + int((fraction.rstrip("0") or "0").ljust(decimals, "0") or "0")
