"""What `pool_world.World` knows of batches: what goes ahead, how they are split, what counts."""

from __future__ import annotations

import itertools
from concurrent.futures import CancelledError

from pool_parts import AHEAD, ROOM, Call, Key, Process

from snakepit_mp.core.events import Event, Phase, RequestSplit
from snakepit_mp.core.instructions import GrantRequest
from snakepit_mp.core.pool_state import PoolState

__all__ = ["Batched"]


class Batched:
    state: PoolState
    calls: dict[int, Call]
    hands: dict[Key, int]
    processes: dict[Key, Process]
    spawned: set[Key]
    numbers: itertools.count[int]

    def __init__(self) -> None:
        self.parted_done = 0  # items that were split off from their batch, completed
        self.parted_unwanted = 0
        self.uncounted = 0  # items that were split off when all of them had been counted
        self.fetched: dict[int, list[Call]] = {}  # what went ahead with a request that is open
        self.most_fetched = 0

    def tell(self, event: Event) -> None:
        raise NotImplementedError

    def batches(self) -> list[int]:
        """Those of which a worker has begun an item, and may be asked for the rest."""
        return [
            request_id
            for key, request_id in self.hands.items()
            if self.calls[request_id].request.items > 1
            and self.processes[key].page[0] == request_id
            and self.processes[key].page[2] in (Phase.TAKEN, Phase.ENTERED)
        ]

    def go_ahead(self, one: GrantRequest) -> None:
        """Those are items of the request from here on."""
        if not one.ahead:
            return
        first, others = self.calls[one.request_id], [self.calls.pop(each) for each in one.ahead]
        kin = first.request.kin
        together = [first, *others]
        assert kin is not None
        assert len(together) <= AHEAD[kin]
        assert sum(call.request.weight for call in together) <= ROOM
        for call in together:
            assert call.open
            assert call.admitted
            assert call.request.kin == kin
            assert call.entered == call.deaths == call.other_deaths == 0
        self.fetched[one.request_id] = others
        self.most_fetched = max(self.most_fetched, len(together))
        first.request = first.request._replace(items=len(together))

    def come_back(self, request_id: int | None) -> None:
        """What went ahead is what it was: its worker has died, or each is told of the end."""
        if request_id in self.fetched:
            assert request_id is not None
            self.calls[request_id].request = self.calls[request_id].request._replace(items=1)
            for call in self.fetched.pop(request_id):
                self.calls[call.request.request_id] = call

    def split(self, request_id: int, done: int, unwanted: int, *, late: bool = False) -> None:
        """Leave one item to the request. ``late``: the brain has answered it in the meantime."""
        call = self.calls[request_id]
        spare = call.request.items - 1
        done = min(done, spare)
        unwanted = min(unwanted, spare - done)
        left = spare - done - unwanted
        rest = [call.request._replace(request_id=next(self.numbers), items=left)] if left else []
        if request_id in self.fetched:
            back = self.fetched.pop(request_id)[done + unwanted :]
            rest = [each.request for each in back]
            self.calls |= {each.request.request_id: each for each in back}
        elif left:
            self.calls[rest[0].request_id] = Call(rest[0], admitted=not late)
        if late:
            self.uncounted += left
        else:
            call.request = call.request._replace(items=1)
            self.parted_done += done
            self.parted_unwanted += unwanted
        self.tell(RequestSplit(request_id, done, tuple(rest)))

    def check_counters(self) -> None:
        counters = self.state.counters()
        answers = [call.answers[0] for call in self.calls.values() if call.answers]
        ended = [
            (call.answers[0], call.request.items) for call in self.calls.values() if call.answers
        ]
        parted = self.parted_done + self.parted_unwanted
        items = sum(call.request.items for call in self.calls.values())
        assert counters.submitted == items + parted - self.uncounted
        completed = sum(items for answer, items in ended if answer == "completed")
        assert counters.completed == completed + self.parted_done
        cancelled = sum(items for answer, items in ended if isinstance(answer, CancelledError))
        assert counters.cancelled == cancelled + self.parted_unwanted - self.uncounted
        timed_out = sum(items for answer, items in ended if isinstance(answer, TimeoutError))
        assert counters.timed_out == timed_out
        assert counters.running == len(self.hands)
        assert counters.waiting == len(self.calls) - len(answers) - len(self.hands)
        assert counters.restarts == sum(incarnation > 1 for _, incarnation in self.spawned)
