"""Writes docs/openapi.json from the operations that the admin API serves, and docs/bank-openapi.json from the bank's.

`--check` says whether they are current.
"""

import json
import sys
from pathlib import Path
from typing import Any, cast

from isthmus import __version__
from isthmus.ledgers.bank.document import document as bank_document
from isthmus.node.admin.everything import all_operations
from isthmus.node.admin.openapi import document

DOCS = Path(__file__).resolve().parent.parent / "docs"


def documents() -> dict[Path, str]:
    """By file. Nobody is asked: operations are only described."""
    nobody = cast(Any, None)
    operations = all_operations(nobody, nobody, nobody, nobody, nobody, nobody, "")
    found = {"openapi.json": document(operations), "bank-openapi.json": bank_document(__version__)}
    return {DOCS / name: json.dumps(each, indent=2, ensure_ascii=False) + "\n" for name, each in found.items()}


def main() -> int:
    for file, text in documents().items():
        if "--check" not in sys.argv[1:]:
            file.write_text(text)
        elif not file.exists() or file.read_text() != text:
            print(f"{file.name} is not current: .venv/bin/python tools/openapi_document.py", file=sys.stderr)
            return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
