"""`python -m isthmus.ledgers.xrp`: makes keys for engines."""

import argparse
import os
import sys
from pathlib import Path

from isthmus.errors import IsthmusError, LedgerError
from isthmus.ledgers.xrp.keys import make_key_file, read_key


def main() -> int:
    """Exit status."""
    parser = argparse.ArgumentParser(prog="python -m isthmus.ledgers.xrp", description=__doc__)
    what = parser.add_subparsers(dest="what", required=True)
    for name, help_text in (
        ("new-key", "make a key for one engine, in a new file"),
        ("address", "the address of a key"),
    ):
        one = what.add_parser(name, help=help_text)
        one.add_argument("key_file", type=Path, help="mode 600")
        one.add_argument("--passphrase-variable", help="the environment variable with its passphrase")
    try:
        sys.stdout.write(_do(parser.parse_args()) + "\n")
    except IsthmusError as error:
        sys.stderr.write(f"{error}\n")
        return 2
    return 0


def _do(given: argparse.Namespace) -> str:
    variable: str | None = given.passphrase_variable
    file: Path = given.key_file
    if given.what == "address":
        key = read_key("key_file", file=file, variable=None, passphrase_variable=variable, environ=os.environ)
        return key.address
    passphrase = os.environ.get(variable, "") if variable else None
    if passphrase == "":
        raise LedgerError(f"the environment has no {variable}")
    try:
        return make_key_file(file, passphrase=passphrase).address
    except OSError as error:
        raise LedgerError(f"{file}: {error.strerror}") from None


if __name__ == "__main__":
    sys.exit(main())
