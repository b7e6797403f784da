"""What operators do about engines' alarms: a line for each, told with it. Events without the engine's name before."""

from typing import Final

WAIT: Final = "nothing, unless it lasts"

REMEDIES: Final = {
    "address_claimed_twice": "ask both peers, and fix peer_address of each",
    "bank_unmatched": "isthmus settlements unmatched, then assign or dismiss it",
    "channel_closing": "nothing: the claim is redeemed now; keep the node running until then",
    "channel_reorganised": "nothing: it is submitted again; if it repeats, ask for more confirmations",
    "claim_not_taken": f"{WAIT}: it is sent again; then ask the peer",
    "claim_refused": "nothing is credited: ask the peer",
    "close_not_agreed": "nothing: the channel ends after its settle delay",
    "credit_not_booked": f"{WAIT}: it is tried again",
    "credit_undone": "nothing: it is owed to us again; if it repeats, ask for more confirmations",
    "engine_defect": "report it, with the lines of the log before it",
    "ledger_away": f"{WAIT}: then look whether the ledger's node answers",
    "nodes_disagree": "nothing is credited or paid on their word: look which of the two is wrong, and replace it",
    "not_in_xrp": "look at it on the ledger, and agree with whoever paid it",
    "paid_and_reversed": "book it by hand with the peer: isthmus settle --by-hand",
    "peer_refused": f"{WAIT}: it is asked again; then ask the peer",
    "refused": f"{WAIT}: it is tried again; the reason says what is in the way",
    "reorganised": "nothing: blocks are read again; if it repeats, ask for more confirmations",
    "settle_delay_too_long": "agree on a shorter one with the peer, or raise settle_delay_max",
    "step_refused": f"{WAIT}: it is tried again; the reason is the books'",
    "stranger_paid": "ask whose it is, and book it by hand: isthmus settle --by-hand",
    "transaction_failed": "look at it on the ledger: it is done anew if it is still due; a payment waits for you",
    "transaction_refused": f"{WAIT}: it is submitted again; the reason says what is in the way",
    "transaction_reorganised": "nothing: it is submitted again; if it repeats, ask for more confirmations",
    "transfer_twice": "nothing: it is credited once",
    "unmatched": "ask whose it is, and book it by hand: isthmus settle --by-hand",
}


def remedy_of(engine: str, event: str) -> str:
    """Its own, or that of all engines."""
    return REMEDIES.get(f"{engine}_{event}") or REMEDIES[event]
