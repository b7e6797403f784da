"""What a batch did to the accounts, for the statement projection that the journal writes in the same transaction."""

from isthmus.connector.books import PEER, Account
from isthmus.connector.events import AccountMovement, Summary
from isthmus.connector.lane import Lane
from isthmus.connector.switch import Switch


def summarise(switch: Switch) -> Summary:
    """Tell what changed since the last summary, and begin anew."""
    movements: list[AccountMovement] = []
    internal: dict[int, Account] = {}
    for account in switch.books.changed:
        account.dirty = False
        if account.kind != PEER:
            internal[account.index] = account
            continue
        movements.append(_movement(switch.by_index[account.index]))
        for other in (account.clearing, account.spread, account.rounding):
            internal[other.index] = other
    for lane in switch.rejected_lanes:
        if lane.rejected_unreported:
            movements.append(_movement(lane))
    summary = Summary(
        switch.wall,
        movements,
        switch.singles,
        [(account.name, account.balance) for account in internal.values()],
    )
    switch.books.changed.clear()
    switch.rejected_lanes = []
    switch.singles = []
    return summary


def _movement(lane: Lane) -> AccountMovement:
    account = lane.account
    movement = AccountMovement(
        account=lane.id,
        incoming=account.posted_incoming - lane.reported_incoming,
        outgoing=account.posted_outgoing - lane.reported_outgoing,
        incoming_packets=account.posted_incoming_count - lane.reported_incoming_count,
        outgoing_packets=account.posted_outgoing_count - lane.reported_outgoing_count,
        rejected_packets=lane.rejected_unreported,
        balance=account.balance,
    )
    lane.reported_incoming = account.posted_incoming
    lane.reported_outgoing = account.posted_outgoing
    lane.reported_incoming_count = account.posted_incoming_count
    lane.reported_outgoing_count = account.posted_outgoing_count
    lane.rejected_unreported = 0
    return movement
