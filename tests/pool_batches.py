"""What `pool_world.World` knows of batches: how they are split, and what there is to be counted."""

from __future__ import annotations

import itertools
from concurrent.futures import CancelledError

from pool_parts import Call, Key, Process

from snakepit_mp.core.events import Event, Phase, RequestSplit
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

    def split(self, request_id: int, done: int, unwanted: int, *, late: bool = False) -> None:
        """Leave one item to the request. ``late``: the brain has answered it in the meantime."""
        call = self.calls[request_id]
        spare = call.request.items - 1
        done = min(done, spare)
        unwanted = min(unwanted, spare - done)
        rest = ()
        if left := spare - done - unwanted:
            rest = (call.request._replace(request_id=next(self.numbers), items=left),)
            self.calls[rest[0].request_id] = Call(rest[0], admitted=not late)
        if not late:
            call.request = call.request._replace(items=1)
            self.parted_done += done
            self.parted_unwanted += unwanted
        self.tell(RequestSplit(request_id, done, rest))

    def check_counters(self) -> None:
        counters = self.state.counters()
        answers = [call.answers[0] for call in self.calls.values() if call.answers]
        ended = [
            (call.answers[0], call.request.items) for call in self.calls.values() if call.answers
        ]
        parted = self.parted_done + self.parted_unwanted
        items = sum(call.request.items for call in self.calls.values())
        assert counters.submitted == items + parted
        completed = sum(items for answer, items in ended if answer == "completed")
        assert counters.completed == completed + self.parted_done
        cancelled = sum(items for answer, items in ended if isinstance(answer, CancelledError))
        assert counters.cancelled == cancelled + self.parted_unwanted
        timed_out = sum(items for answer, items in ended if isinstance(answer, TimeoutError))
        assert counters.timed_out == timed_out
        assert counters.running == len(self.hands)
        assert counters.waiting == len(self.calls) - len(answers) - len(self.hands)
        assert counters.restarts == sum(incarnation > 1 for _, incarnation in self.spawned)
