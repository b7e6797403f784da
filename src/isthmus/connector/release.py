"""What a batch sets free once it is durable: its frames, as far as they are still wanted, and its answers."""

from isthmus.connector.batch import Batch
from isthmus.connector.events import AccountId, Noted, Outbound
from isthmus.connector.lane import Lane
from isthmus.connector.reply import expire, never_sent
from isthmus.connector.switch import Switch
from isthmus.ilp.packet import PREPARE


def release(switch: Switch, batch: Batch, releases: dict[AccountId, list[Outbound]]) -> None:
    """The batch is durable: its frames may leave, and those who asked may hear."""
    mono = switch.mono
    if mono >= batch.first_posted_deadline:
        _list_at_risk(switch, batch)
    for lane, frames in batch.frames:
        if not lane.up or mono >= batch.first_deadline or lane.renewed_after > switch.released_leg:
            frames = _still_wanted(switch, lane, frames)
        if frames:
            queued = releases.get(lane.id)
            if queued is None:
                releases[lane.id] = frames
            else:
                queued += frames
    switch.released_leg = batch.last_leg
    switch.effects += [Noted(token) for token in batch.tokens]
    switch.effects += batch.answers


def _still_wanted(switch: Switch, lane: Lane, frames: list[Outbound]) -> list[Outbound]:
    """Replies always leave; Prepares only if link and session are theirs and their time has not run out."""
    kept: list[Outbound] = []
    for frame in frames:
        if frame.packet[0] != PREPARE:
            kept.append(frame)
            continue
        leg = lane.account.sent.get(frame.request_id)
        if leg is None:
            # Decided while it waited; or it is no packet but a report of outcomes, or a question of ours.
            if lane.up and (frame.request_id == lane.reporter.request_id or frame.request_id in lane.questions):
                kept.append(frame)
            continue
        if switch.mono >= leg.deadline:
            expire(switch, leg)
        elif not lane.up or leg.session != lane.session:
            never_sent(switch, leg)
        else:
            kept.append(frame)
    return kept


def _list_at_risk(switch: Switch, batch: Batch) -> None:
    """The commit ended after an incoming expiry: the peer may refuse the Fulfill, which is sent all the same."""
    for leg in batch.posted:
        if switch.mono >= leg.deadline and leg.amount:
            lane = switch.by_index[leg.account.index]
            ms_late = switch.mono - leg.deadline
            switch.books.put_at_risk(leg.account, leg.id, leg.amount, ms_late)
            text = f"fulfilled {ms_late} ms after the incoming expiry; leg {leg.id}"
            switch.singles.append(("at risk", lane.id, leg.amount, text))
            switch.warn(lane, "at_risk", {"amount": str(leg.amount), "ms_late": ms_late})
