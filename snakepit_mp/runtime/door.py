"""How do others get in? By the bridge, which hands their calls to the pool like any other."""

from __future__ import annotations

import weakref
from collections.abc import Callable, Generator, Mapping
from typing import TYPE_CHECKING, Any, Protocol, TypeVar

from ..adapter import ToolSpec
from ..config import PoolConfig
from ..errors import PoolClosed
from ..store.session_store import SessionStore
from .cleanup import SocketDirectory

if TYPE_CHECKING:
    from ..bridge.server import BridgeServer

__all__ = ["Callee", "open_bridge"]


class Callee(Protocol):
    """What the bridge needs of a pool."""

    def execute(
        self, command: str, args: object, *, session_id: str | None, timeout: float | None
    ) -> Any: ...

    def stream(
        self, command: str, args: object, *, session_id: str | None, timeout: float | None
    ) -> Generator[Any, None, None]: ...


_P = TypeVar("_P", bound=Callee)


def open_bridge(
    pool: _P,
    tools_of: Callable[[_P], Mapping[str, ToolSpec]],
    store: SessionStore,
    directory: SocketDirectory,
    config: PoolConfig,
) -> BridgeServer | None:
    """Serve where ``config.bridge`` says; ``None`` where that says nowhere."""
    if config.bridge is None:
        return None
    # Here, since importing the library must not import grpc.
    from ..bridge.server import BridgeServer

    # Weakly: a server that keeps its pool alive would keep it for ever.
    weak = weakref.ref(pool)

    def opened() -> _P:
        alive = weak()
        if alive is None:
            raise PoolClosed("the pool is gone")
        return alive

    server = BridgeServer(
        store,
        lambda name, args, session_id, timeout: opened().execute(
            name, args, session_id=session_id, timeout=timeout
        ),
        lambda name, args, session_id, timeout: opened().stream(
            name, args, session_id=session_id, timeout=timeout
        ),
        lambda: tools_of(opened()),
        address=f"unix:{directory.bridge_path}" if config.bridge == "unix" else config.bridge,
    )
    server.start()
    return server
