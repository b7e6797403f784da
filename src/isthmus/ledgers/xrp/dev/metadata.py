"""Metadata: what a transaction did to each entry, in the words of xrpl.org "Transaction Metadata"."""

from dataclasses import replace
from typing import Any, Final

from isthmus.ledgers.xrp.dev.entries import THREAD_FIELDS, Entry, Fields, PayChannel
from isthmus.ledgers.xrp.dev.results import Result
from isthmus.ledgers.xrp.dev.transactions import Transaction
from isthmus.ledgers.xrp.dev.views import Layer, View

_NOT_SHOWN: Final = ("LedgerEntryType", *THREAD_FIELDS)
# Values that NewFields leaves out, being what a field holds anyway.
_DEFAULTS: Final = (0, "0", "")
_ADDRESS_FIELDS: Final = ("Account", "Destination", "NFTokenMinter")


def thread(before: View, layer: Layer, transaction_id: str, ledger_index: int) -> None:
    """Note in every entry that a transaction changed which one it was ("threading").

    A channel that comes or goes is noted at both its accounts, even if nothing else changes there.
    """
    touched = dict(layer.changes)
    for index, entry in touched.items():
        came_or_went = entry is None or before.get(index) is None
        party = entry or before.get(index)
        if came_or_went and isinstance(party, PayChannel):
            for address in (party.source, party.destination):
                account = layer.account(address)
                if account is not None:
                    layer.put(account)
    for index, entry in list(layer.changes.items()):
        if entry is not None:
            layer.changes[index] = replace(entry, changed_by=transaction_id, changed_at=ledger_index)


def metadata(before: View, layer: Layer, result: Result, position: int) -> Fields:
    """The metadata of an applied transaction, whose layer was threaded. `position` is its place in the ledger."""
    nodes = [_node(index, before.get(index), layer) for index in sorted(layer.changes)]
    return {"AffectedNodes": nodes, "TransactionIndex": position, "TransactionResult": result.token}


def _node(index: str, before: Entry | None, layer: Layer) -> Fields:
    after = layer.changes[index]
    if after is None:
        assert before is not None, "no transaction makes an entry and takes it away again"
        return {"DeletedNode": _deleted(before, layer.erased[index])}
    if before is None:
        new = {name: value for name, value in _shown(after).items() if value not in _DEFAULTS}
        return {"CreatedNode": {"LedgerEntryType": after.TYPE, "LedgerIndex": index, "NewFields": new}}
    node: Fields = {
        "LedgerEntryType": after.TYPE,
        "LedgerIndex": index,
        "PreviousTxnID": before.changed_by,
        "PreviousTxnLgrSeq": before.changed_at,
    }
    if _shown(before) != _shown(after):
        node["FinalFields"] = _shown(after)
        node |= _previous(before, after)
    return {"ModifiedNode": node}


def _deleted(before: Entry, last: Entry) -> Fields:
    final = last.fields()
    del final["LedgerEntryType"]
    return {
        "LedgerEntryType": before.TYPE,
        "LedgerIndex": before.index,
        "FinalFields": final,
        **_previous(before, last),
    }


def _previous(before: Entry, after: Entry) -> Fields:
    """Old values of fields that changed or went; those that came have none."""
    new = _shown(after)
    previous = {name: value for name, value in _shown(before).items() if new.get(name) != value}
    return {"PreviousFields": previous} if previous else {}


def _shown(entry: Entry) -> Fields:
    return {name: value for name, value in entry.fields().items() if name not in _NOT_SHOWN}


def affected(transaction: Transaction, meta: Fields) -> list[str]:
    """The addresses that a transaction concerns, in order: its account's history and subscriptions go by these."""
    found = {transaction.account}
    for node in meta["AffectedNodes"]:
        [(kind, body)] = node.items()
        fields: dict[str, Any] = body.get("NewFields" if kind == "CreatedNode" else "FinalFields", {})
        found.update(fields[name] for name in _ADDRESS_FIELDS if name in fields)
    return sorted(found)
