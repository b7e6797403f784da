"""One fuzzer process for one target: `python -m tests.fuzz.child NAME CORPUS libFuzzer options…`.

Only isthmus's own modules are watched, so the fuzzer is led by our branches and not by those of libraries.
"""

import shlex
import sys

import atheris

from tests.fuzz.registry import UNWATCHED, load


def main() -> None:
    name = sys.argv.pop(1)
    # libFuzzer has a shell start it again with this and its options, when it merges corpora.
    sys.argv[0] = f"{shlex.quote(sys.executable)} -m tests.fuzz.child {name}"
    unwatched = list(UNWATCHED.get(name, ()))
    with atheris.instrument_imports(include=["isthmus"], exclude=unwatched):
        target = load(name)
    atheris.Setup(sys.argv, target.run, enable_python_coverage=True)
    atheris.Fuzz()


if __name__ == "__main__":
    main()
