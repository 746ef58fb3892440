from collections.abc import Mapping
from typing import Any, final

@final
class Validator:
    def __init__(
        self,
        kind: str,
        constraints: Mapping[str, Any] | None = None,
        variable: str | None = None,
    ) -> None: ...
    def prepare(self, value: Any, /) -> Any: ...

def decode(
    data: bytes | bytearray | memoryview,
    *,
    allow_pickle: bool = False,
    copy: bool = True,
    offset: int = 0,
    size: int | None = None,
) -> Any: ...
def encode(value: Any, *, allow_pickle: bool = False, root: str = "value") -> bytes: ...
def encode_into(
    value: Any,
    buffer: bytearray | memoryview,
    offset: int = 0,
    *,
    allow_pickle: bool = False,
    root: str = "value",
) -> int: ...
def encode_size(value: Any, *, allow_pickle: bool = False, root: str = "value") -> int: ...
