"""Result codes have the numbers that the binary format gives them."""

import json
from pathlib import Path

import xrpl.core.binarycodec.definitions

from isthmus.ledgers.xrp.dev.results import Result


def test_every_result_has_the_number_that_clients_know() -> None:
    folder = Path(xrpl.core.binarycodec.definitions.__path__[0])
    known = json.loads((folder / "definitions.json").read_text())["TRANSACTION_RESULTS"]
    assert {each.token: each.code for each in Result} == {each.token: known[each.token] for each in Result}


def test_results_are_told_apart_by_their_letters() -> None:
    for each in Result:
        kinds = (each.is_success, each.claims_fee, each.may_succeed_later)
        assert kinds == tuple(each.token.startswith(letters) for letters in ("tes", "tec", "ter"))
        assert each.claims_fee == (each.code >= 100)
