"""What does a worker's journal tell of a batch? Its outcomes, as far as they make sense."""

from __future__ import annotations

from typing import NamedTuple

from ..lanes import envelope
from ..lanes.envelope import Frame, Kind
from ..lanes.mailbox import MailboxLane
from .waiter import Grant

__all__ = ["BETWEEN", "SLOW", "Told", "journal_of", "lane_of", "last_of"]

#: Seconds after which the worker is left no more than the item in hand: several times what a
#: batch is meant to take.
SLOW = 0.02
#: Seconds until it is asked again whether a batch has landed that was about to.
BETWEEN = 0.005


class Told(NamedTuple):
    """Outcomes, each a value's encoding or an ERROR frame, and which; seconds that each took, where
    that was measured; ``cut``: the results had no room for more."""

    outcomes: list[tuple[Frame, bool]]
    each: float | None
    cut: bool


def lane_of(grant: Grant) -> MailboxLane:
    assert isinstance(grant.lane, MailboxLane)  # its pool has no other
    return grant.lane


def journal_of(grant: Grant, reply: Frame, items: int) -> Told:
    """Of a batch that has ended with this reply. ``ValueError``, `CodecError` or ``TypeError`` for
    nonsense. The journal is closed by that."""
    lane, kind = lane_of(grant), envelope.header_of(reply).kind
    claimed, done = lane.standing()
    if not done <= claimed <= items:
        raise ValueError("the worker claims what is not there")
    outcomes: list[tuple[Frame, bool]] = list(lane.journal(done))
    each, cut = None, False
    if kind is Kind.BATCHED:
        number, busy = envelope.decode_reply(reply).value
        if not 0 < done == number == claimed:
            raise ValueError("a batch has ended and not all that was claimed is done")
        each = busy / done / 1e9
    elif claimed == 0 and kind is Kind.ERROR:  # something is wrong with all of them
        outcomes = [(reply, True)] * items
    elif claimed == done + 1 and kind in (Kind.VALUE, Kind.ERROR):  # too long for the journal
        failed = kind is Kind.ERROR
        outcomes.append((reply if failed else memoryview(reply)[envelope.HEADER_SIZE :], failed))
        cut = True
    else:
        raise ValueError("a batch has ended in the middle of an item")
    lane.close_journal()
    return Told(outcomes, each, cut)


def last_of(grant: Grant, request_id: int, reply: Frame) -> Frame:
    """The reply to the item that a split has left to the request. Else as `journal_of`."""
    lane = lane_of(grant)
    if envelope.header_of(reply).kind is Kind.BATCHED:
        claimed, done = lane.standing()
        if not 0 < done <= claimed:
            raise ValueError("a batch has ended and its last item is not done")
        data, failed = lane.journal(done)[-1]
        reply = data if failed else envelope.frame(Kind.VALUE, request_id, 0, data)
    lane.close_journal()
    return reply
