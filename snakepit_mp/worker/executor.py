"""How does a worker run a tool? In its main thread, one request at a time.

Requests come through an inbox from the threads that serve them. How far each has come is
noted on the status page, which outlives the worker.
"""

from __future__ import annotations

import asyncio
import contextvars
import inspect
import queue
import threading
import time
from collections import deque
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from functools import partial
from types import NoneType, TracebackType
from typing import Any, Protocol

from ..adapter import Adapter, ToolSpec, methods_of, retried_exceptions
from ..errors import InvalidArguments, ToolNotFound, VariableNotFound
from ..lanes.context import restore
from ..lanes.envelope import (
    Call,
    Kind,
    Outbound,
    decode_call,
    encode_batched,
    encode_end,
    encode_error,
    encode_value,
    outbound,
)
from ..lanes.status import StatusPage
from ..parameters import CONTEXT, with_context
from ..telemetry.trace import adopt
from ..values import codec
from .descent import OnlyThisProcess
from .interrupts import Interrupted, Interrupts
from .job import BatchJob, Job, JobCancelled, JobRefused, RunnableJob
from .memory import MemoryNotes

__all__ = ["ContextFactory", "Executor", "Inbox"]

#: Makes what a tool gets as ``ctx``, from the call's session id, attempt and deadline, and a
#: function that tells whether its caller has gone.
ContextFactory = Callable[[str | None, int, float | None, Callable[[], bool]], Any]

#: Of the usual results it need not be asked whether they are to be awaited.
_PLAIN = frozenset({NoneType, bool, int, float, str, bytes, tuple, list, dict})

#: What makes the arguments for one item of a batch.
_Prepare = Callable[[Any], tuple[tuple[Any, ...], dict[str, Any]]]
#: As a function in a batch gets its one argument.
_ALONE = (None,)

#: Requests that were withdrawn before they came; their frames may still be under way.
_REMEMBERED_WITHDRAWALS = 256


class Inbox(Protocol):
    """Where `Executor.run` takes its work from. `put` may be called from anywhere."""

    def put(self, item: Any) -> None: ...

    def get(self) -> Any:
        """A job, a withdrawal, or ``None`` to end."""


class _Withdrawal(int):
    """In the inbox: the number of a request that is over, though it did not run then."""


class Executor:
    """Runs the tools of an adapter, or callables where there is none.

    ``adapter`` has been started already. ``on_session`` is called with a call's session
    before its tool, ``on_abandoned`` with number and attempt of a request whose caller has
    left, or may have left, when the worker is free of it. ``inbox``: where work comes from
    besides `submit`. `run` belongs to the main thread;
    `submit` and `stop` may be called in any other. All of it belongs to the process that
    makes it: one that a tool forks ends with the tool's code.
    """

    def __init__(
        self,
        adapter: Adapter | None,
        status: StatusPage,
        *,
        context: ContextFactory,
        on_session: Callable[[str], object] = lambda session_id: None,
        on_abandoned: Callable[[int, int | None], object] = lambda request_id, attempt: None,
        allow_pickle: bool = True,
        inbox: Inbox | None = None,
    ) -> None:
        self._methods = {} if adapter is None else methods_of(adapter)
        self._status = status
        self._context = context
        self._on_session = on_session
        self._on_abandoned = on_abandoned
        self._allow_pickle = allow_pickle
        self._inbox: Inbox = queue.SimpleQueue() if inbox is None else inbox
        self._lock = threading.Lock()
        self._stopping = False
        self._only_here = OnlyThisProcess()
        self._memory = MemoryNotes(status)
        self._runner = asyncio.Runner()  # makes its loop when it is first used
        #: The request that runs and its session, for whoever wants to say so.
        self.current: tuple[int | None, str | None] = (None, None)
        self._withdrawn: deque[int] = deque(maxlen=_REMEMBERED_WITHDRAWALS)
        self.interrupts = Interrupts(status, lambda number: self._inbox.put(_Withdrawal(number)))

    def submit(self, frame: bytes, *, streaming: bool = False) -> Job:
        """Have a CALL frame run. `CodecError` if it is none, `JobRefused` after `stop`."""
        # A stream may be left early and its worker go on; it comes back through the inbox.
        job = Job(frame, abandoned=self._inbox.put) if streaming else Job(frame)
        with self._lock:
            if self._stopping:
                raise JobRefused
            self._inbox.put(job)
        return job

    def stop(self) -> None:
        """Let `run` return after the job in hand; those behind it are refused."""
        with self._lock:
            self._stopping = True
            self._inbox.put(None)

    def run(self) -> None:
        """Run jobs until `stop`."""
        try:
            while self._run_next():
                pass
        finally:
            self._runner.close()

    def _run_next(self) -> bool:
        job = self._inbox.get()
        if job is None:  # the end mark, which `stop` has put
            return False
        if isinstance(job, _Withdrawal):
            self._withdrawn.append(job)
            self._on_abandoned(int(job), None)
        elif job.finished:
            self._on_abandoned(job.header.request_id, job.header.attempt)
        elif self._stopping:
            job.refuse()
        elif job.cancelled or job.header.request_id in self._withdrawn:
            job.finish(b"")  # nobody reads it
        elif job.header.kind is Kind.BATCH:
            self._perform_batch(job)
        else:
            self._perform(job)
        return True

    def _perform(self, job: RunnableJob) -> None:
        request_id, attempt = job.header.request_id, job.header.attempt
        self._status.taken(request_id, attempt)
        interrupts = self.interrupts
        try:
            try:
                interrupts.armed = request_id
                with self._only_here:
                    interrupts.check()
                    last = contextvars.copy_context().run(self._answer, job)
            finally:
                interrupts.armed = 0
        except BaseException as error:  # noqa: BLE001 - a tool must not end its worker
            interrupts.armed = 0  # it may have come between the tool and that step above
            last = self._failure(job, error)
        self._finish(job, last)

    def _failure(self, job: RunnableJob, error: BaseException) -> bytes:
        BaseException.with_traceback(error, _of_the_tool(error.__traceback__))
        return encode_error(
            job.header.request_id,
            error,
            allow_pickle=self._allow_pickle,
            retryable=isinstance(error, job.retry_on),
        )

    def _finish(self, job: RunnableJob, last: Outbound, tasks: int = 1) -> None:
        request_id, attempt = job.header.request_id, job.header.attempt
        self._status.done(request_id, attempt, tasks=tasks)
        self.current = None, None
        job.finish(last)
        self._memory.after_task()
        if self._status.interrupted() == request_id:
            self._on_abandoned(request_id, attempt)

    # -- batches -----------------------------------------------------------------------

    def _perform_batch(self, job: BatchJob) -> None:
        """Each item as `_perform` does a call, but for what is the same for all."""
        request_id, interrupts = job.header.request_id, self.interrupts
        self._status.taken(request_id, job.header.attempt)
        began = time.monotonic_ns()
        context = contextvars.copy_context()
        try:
            with self._only_here:
                items, function, prepare = context.run(self._begin_batch, job)
        except BaseException as error:  # noqa: BLE001 - as in `_perform`
            self._finish(job, self._failure(job, error))
            return
        last: Outbound | None = None
        journal, left = job.journal, iter(items)
        journal.open_journal()
        while True:
            try:
                try:
                    interrupts.armed = request_id
                    with self._only_here:
                        interrupts.check()  # after the item that was interrupted no other runs
                        last = context.run(self._run_items, job, left, function, prepare)
                    break
                finally:
                    interrupts.armed = 0
            except BaseException as error:  # noqa: BLE001 - as in `_perform`
                interrupts.armed = 0
                claimed, done = journal.standing()
                if claimed == done:
                    break  # an interrupt that came too late
                failure = self._failure(job, error)
                if not journal.record(failure, True):
                    last = failure
                    break
        done = journal.standing()[1] + (last is not None)
        if last is None:
            last = encode_batched(request_id, done, time.monotonic_ns() - began)
        self._finish(job, last, done)

    def _begin_batch(self, job: BatchJob) -> tuple[tuple[Any, ...], Callable[..., Any], _Prepare]:
        """The items, what is called for each, and what makes the arguments of one."""
        call = decode_call(job.frame, allow_pickle=self._allow_pickle)
        self._enter(call, job)
        if call.command is not None:
            spec, method = self._tool(call, job)
            context_wanted = spec.takes_context or spec.required_variables

            def bind(item: Any) -> tuple[tuple[Any, ...], dict[str, Any]]:
                bound = None if context_wanted else spec.plain(item)
                return (), self._bound(spec, call, (), item, job) if bound is None else bound

            return call.args, method, bind
        import cloudpickle

        function = cloudpickle.loads(call.function)
        context = partial(self._make_context, call, job)

        def prepare(item: Any) -> tuple[tuple[Any, ...], dict[str, Any]]:
            return with_context(function, item, {}, context)

        given = with_context(function, _ALONE, {}, object)
        return call.args, function, prepare if given != (_ALONE, {}) else lambda item: (item, {})

    def _run_items(
        self,
        job: BatchJob,
        items: Iterator[Any],
        function: Callable[..., Any],
        prepare: _Prepare,
    ) -> Outbound | None:
        """Until no more are left, or one raises. The last reply, if the journal is too small."""
        encode, journal, check = codec.encode, job.journal, self._only_here.check
        header, allow_pickle = job.header, self._allow_pickle
        taken, entered = self._status.words_of(header.request_id, header.attempt)
        copied = contextvars.copy_context
        while journal.claim(taken):
            args, kwargs = prepare(next(items))
            journal.enter(entered)
            result = copied().run(function, *args, **kwargs)
            check()
            if type(result) not in _PLAIN and inspect.isawaitable(result):
                result = self._run_async(result)
            data = encode(result, allow_pickle=allow_pickle, root="result")
            if not journal.record(data, False):
                return outbound(Kind.VALUE, header.request_id, 0, data)
        return None

    # -- calls -------------------------------------------------------------------------

    def _answer(self, job: RunnableJob) -> Outbound:
        """The last frame of the reply."""
        header = job.header
        call = decode_call(job.frame, allow_pickle=self._allow_pickle)
        self._enter(call, job)
        invoke = self._prepare(call, job)
        self._status.entered(header.request_id, header.attempt)
        result = self._result_of(invoke)
        if not call.streaming:
            return encode_value(header.request_id, result, allow_pickle=self._allow_pickle)
        self._send_items(result, job)
        return encode_end(header.request_id)

    def _enter(self, call: Call, job: RunnableJob) -> None:
        """Be where the caller is, as far as the call says."""
        self.current = job.header.request_id, call.session_id
        restore(call.context)
        adopt(call.trace)
        if call.session_id is not None:
            self._on_session(call.session_id)

    def _result_of(self, invoke: Callable[[], Any]) -> Any:
        result = invoke()
        self._only_here.check()
        if type(result) not in _PLAIN and inspect.isawaitable(result):
            return self._run_async(result)
        return result

    def _prepare(self, call: Call, job: RunnableJob) -> Callable[[], Any]:
        """What remains to be called; everything that can be wrong with a call shows here."""
        if call.command is None:
            return self._prepare_callable(call, partial(self._make_context, call, job))
        spec, method = self._tool(call, job)
        return partial(method, **self._bound(spec, call, call.args, call.kwargs, job))

    def _tool(self, call: Call, job: RunnableJob) -> tuple[ToolSpec, Callable[..., Any]]:
        assert call.command is not None
        if call.command not in self._methods:
            known = tuple(sorted(self._methods))
            raise ToolNotFound(
                f"no tool named {call.command!r}; there are: {', '.join(known) or 'none'}",
                name=call.command,
                known=known,
            )
        spec, method = self._methods[call.command]
        job.retry_on = retried_exceptions(method)
        spec.check_streaming(call.streaming)
        return spec, method

    def _bound(
        self,
        spec: ToolSpec,
        call: Call,
        args: tuple[Any, ...],
        kwargs: dict[str, Any],
        job: RunnableJob,
    ) -> dict[str, Any]:
        """What a tool is called with, its context included."""
        kwargs = spec.bind(args, kwargs)
        if spec.takes_context or spec.required_variables:
            context = self._make_context(call, job)
            _check_variables(spec, context)
            if spec.takes_context:
                kwargs[CONTEXT] = context
        return kwargs

    def _prepare_callable(self, call: Call, make_context: Callable[[], Any]) -> Callable[[], Any]:
        import cloudpickle  # workers of pools with named tools do without

        function = cloudpickle.loads(call.function)
        args, kwargs = with_context(function, call.args, call.kwargs, make_context)
        return partial(function, *args, **kwargs)

    def _make_context(self, call: Call, job: RunnableJob) -> Any:
        header = job.header

        def cancelled() -> bool:
            return job.cancelled or self._status.interrupted() == header.request_id

        return self._context(call.session_id, header.attempt, header.deadline, cancelled)

    def _run_async(self, awaitable: Awaitable[Any]) -> Any:
        try:
            return self._runner.run(self._awaited(awaitable), context=contextvars.copy_context())
        except Interrupted:
            # The loop was left in the middle of a step; closing it cancels what is in it.
            runner, self._runner = self._runner, asyncio.Runner()
            runner.close()
            raise

    async def _awaited(self, awaitable: Awaitable[Any]) -> Any:
        # A forked process shares the loop's descriptors: no step further.
        with self._only_here, self.interrupts.cancelling():
            return await awaitable

    def _send_items(self, items: Any, job: RunnableJob) -> None:
        """Send each item when there is room; close the tool if nobody wants more."""
        try:
            if isinstance(items, AsyncIterator):
                self._run_async(self._send_async_items(items, job))
            elif isinstance(items, Iterator):
                self._send_sync_items(items, job)
            else:
                raise InvalidArguments(
                    f"the call streams, but what was called returned a {type(items).__qualname__}"
                )
        except JobCancelled:
            pass  # the tool is closed, and there is nobody to be told

    def _send_sync_items(self, items: Iterator[Any], job: RunnableJob) -> None:
        try:
            for item in items:
                self._only_here.check()
                job.put(self._item(item, job))
        finally:
            close = getattr(items, "close", None)
            if close is not None:
                with self.interrupts.winding_down():
                    close()

    async def _send_async_items(self, items: AsyncIterator[Any], job: RunnableJob) -> None:
        loop = asyncio.get_running_loop()
        task = asyncio.current_task()
        assert task is not None
        job.when_cancelled(partial(loop.call_soon_threadsafe, task.cancel))
        try:
            async for item in items:
                self._only_here.check()
                frame = self._item(item, job)
                if not job.try_put(frame):  # the tool's other tasks go on meanwhile
                    await asyncio.to_thread(job.put, frame)
        except asyncio.CancelledError:
            if not job.cancelled:
                raise
            raise JobCancelled from None
        finally:
            job.when_cancelled(None)
            close = getattr(items, "aclose", None)
            if close is not None:
                with self.interrupts.winding_down():
                    await close()

    def _item(self, item: Any, job: RunnableJob) -> Outbound:
        return encode_value(
            job.header.request_id, item, allow_pickle=self._allow_pickle, kind=Kind.ITEM
        )


def _check_variables(spec: ToolSpec, context: Any) -> None:
    for name in spec.required_variables:
        if name not in context:
            raise VariableNotFound(
                f"{spec.name} requires the variable {name!r}, which its session does not have",
                session_id=context.session_id,
                name=name,
            )


def _of_the_tool(trace: TracebackType | None) -> TracebackType | None:
    """A traceback without the frames that lead to the tool."""
    while trace is not None:
        module = trace.tb_frame.f_globals.get("__name__", "")
        if module != __name__ and not module.startswith("asyncio."):
            break
        trace = trace.tb_next
    return trace
