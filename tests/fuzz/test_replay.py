"""What the fuzzer kept and what it once found, run as plain Python: no fuzzer is needed here."""

import pytest

from tests.fuzz.registry import MODULES, load, read_corpus, read_found

NAMES = sorted(MODULES)
FOUND = [(name, file) for name in NAMES for file in read_found(name)]


@pytest.mark.parametrize("name", NAMES)
def test_every_input_of_the_corpus_has_an_allowed_outcome(name: str) -> None:
    target = load(name)
    inputs = [*target.seeds(), *read_corpus(name)]
    assert inputs
    for octets in inputs:
        target.run(octets)


@pytest.mark.parametrize("name, file", FOUND)
def test_what_was_found_stays_repaired(name: str, file: str) -> None:
    load(name).run(read_found(name)[file])
