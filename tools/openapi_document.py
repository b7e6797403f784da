"""Writes docs/openapi.json from the operations that the admin API serves; `--check` says whether it is current."""

import json
import sys
from pathlib import Path
from typing import Any, cast

from isthmus.node.admin.everything import all_operations
from isthmus.node.admin.openapi import document

FILE = Path(__file__).resolve().parent.parent / "docs" / "openapi.json"


def text() -> str:
    """The document. Nobody is asked: operations are only described."""
    nobody = cast(Any, None)
    operations = all_operations(nobody, nobody, nobody, nobody, nobody, nobody, "")
    return json.dumps(document(operations), indent=2, ensure_ascii=False) + "\n"


def main() -> int:
    if "--check" not in sys.argv[1:]:
        FILE.write_text(text())
        return 0
    if not FILE.exists() or FILE.read_text() != text():
        print(f"{FILE.name} is not current: .venv/bin/python tools/openapi_document.py", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
