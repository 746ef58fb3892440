"""What does every lane promise? The interface that carries frames to one worker and back."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator
from typing import ClassVar

from .envelope import Frame, Outbound

__all__ = ["BegunStream", "FrameStream", "Lane", "LaneBroken", "LaneTimeout"]


class LaneBroken(Exception):
    """The transport failed, or the lane was cancelled; no reply to this frame will come."""


class LaneTimeout(Exception):
    """The deadline passed before the reply came; the worker may still be running the call."""


class FrameStream(Iterator[Frame], ABC):
    """The reply frames of one call, the last one END or ERROR."""

    @abstractmethod
    def close(self) -> None:
        """Stop the tool, if it has not ended. May be called in any thread: whoever waits for
        the next frame gets `LaneBroken`. A second call does nothing."""


class BegunStream(ABC):
    """A stream that nobody waits for: its frames are brought to whoever wants them."""

    @abstractmethod
    def more(self) -> None:
        """One item was taken, so the worker may make another; any thread may say so."""

    @abstractmethod
    def close(self) -> None:
        """Stop the tool, if it has not ended; no frame is brought any more, but for one that is
        just under way. A second call does nothing."""


class Lane(ABC):
    """A private way to one incarnation of one worker; all methods are thread-safe.

    A frame is what `envelope.frame` makes; a reply is for `envelope.decode_reply`. A lane
    reads neither further than the header. A `CodecError` from `call`, `begin` or `stream`
    means that the frame is too large for this lane and nothing was sent.
    """

    name: ClassVar[str]

    @abstractmethod
    def call(self, frame: Outbound, deadline: float | None = None) -> Frame:
        """Send a frame and wait for the reply, in the caller's own thread.

        ``deadline`` is on `time.monotonic`; `LaneTimeout` when it passes. `LaneBroken` when
        the transport fails or another thread calls `cancel`. An exception that interrupts
        the wait, such as `KeyboardInterrupt`, gives the call up: its reply is discarded.
        """

    @abstractmethod
    def begin(self, frame: Outbound, done: Callable[[Frame | LaneBroken], None]) -> None:
        """Send a frame and return at once; ``done`` is called exactly once with the outcome.

        It is called in a thread of the lane or, where the outcome is known already, in the
        caller's before `begin` returns: do not hold a lock here that ``done`` needs.
        """

    @abstractmethod
    def stream(self, frame: Outbound) -> FrameStream:
        """Send a frame; the reply frames as they come, `LaneBroken` when the transport fails.

        The worker stays only a bounded number of items ahead of the consumer.
        """

    @abstractmethod
    def begin_stream(
        self, frame: Outbound, arrived: Callable[[Frame | LaneBroken], None]
    ) -> BegunStream:
        """Send a frame and return at once; ``arrived`` is called with each reply frame, the last
        one END or ERROR, or with `LaneBroken`. For its threads the same holds as for `begin`.
        """

    def nudge(self) -> None:  # noqa: B027 - most have nothing to do
        """The worker was sent a signal: it is to look for it, also if it is about to sleep."""

    @abstractmethod
    def cancel(self) -> None:
        """The worker is dead or condemned: all who wait get `LaneBroken` at once, later
        callers too."""

    @abstractmethod
    def close(self) -> None:
        """`cancel`, then give the transport's resources back."""
