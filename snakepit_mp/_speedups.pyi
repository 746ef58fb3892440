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

def decode(data: bytes | bytearray | memoryview, *, allow_pickle: bool = False) -> Any: ...
def encode(value: Any, *, allow_pickle: bool = False, root: str = "value") -> bytes: ...
