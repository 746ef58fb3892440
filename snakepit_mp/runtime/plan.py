"""What does a fork server know when it begins? Made in the application, sent to the server."""

from __future__ import annotations

import dataclasses
import logging
import os
import pickle
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from multiprocessing import process
from pathlib import Path
from types import ModuleType
from typing import Any

from ..adapter import Adapter, ToolSpec, tools_of
from ..config import PoolConfig, StoreConfig
from ..errors import ConfigError
from ..lanes.choice import chosen_lane, chosen_spin
from ..store.session_store import SessionStore

__all__ = ["THREAD_LIMITS", "AdapterReference", "ForkPlan"]

# Importing NumPy starts one thread per CPU without these set to 1, and a process with threads
# must not fork. Workers raise the limits again.
THREAD_LIMITS = (
    "BLIS_NUM_THREADS",
    "MKL_NUM_THREADS",
    "NUMEXPR_NUM_THREADS",
    "OMP_NUM_THREADS",
    "OPENBLAS_NUM_THREADS",
    "VECLIB_MAXIMUM_THREADS",
)


@dataclass(frozen=True, slots=True)
class AdapterReference:
    """How to find an adapter class elsewhere: by module and name, or by value.

    ``pickled`` (cloudpickle) is for classes that no import can find; the names then only
    serve messages.
    """

    module: str
    qualname: str
    pickled: bytes | None = None

    @classmethod
    def of(cls, adapter: object) -> AdapterReference:
        """The reference to an `Adapter` class, or to ``"package.module:Class"``.

        Raises `ConfigError` for anything else, and for a class that cannot be sent.
        """
        if isinstance(adapter, str):
            return cls._of_name(adapter)
        if not (isinstance(adapter, type) and issubclass(adapter, Adapter)):
            raise ConfigError(
                "adapter must be a subclass of Adapter, 'package.module:Class' or None, "
                f"not {adapter!r}"
            )
        module, qualname = adapter.__module__, adapter.__qualname__
        by_name = _found(module, qualname) is adapter and _is_found_elsewhere(module)
        return cls(module, qualname, None if by_name else _by_value(adapter))

    @classmethod
    def _of_name(cls, name: str) -> AdapterReference:
        module, colon, qualname = name.partition(":")
        parts = [*module.split("."), *qualname.split(".")]
        if not colon or not all(part.isidentifier() for part in parts):
            raise ConfigError(f"adapter must look like 'package.module:Class', not {name!r}")
        return cls(module, qualname)

    def __str__(self) -> str:
        return f"{self.module}:{self.qualname}"


@dataclass(frozen=True, slots=True)
class ForkPlan:
    """The plan. ``main``: data for `multiprocessing.spawn.prepare`.

    ``store``: limits of the store whose descriptors come with the plan. ``lane``: the one that
    was chosen, ``spin``: its microseconds. The rest as in `PoolConfig`.
    """

    adapter: AdapterReference | None
    main: Mapping[str, Any]
    store: StoreConfig
    preload: tuple[str, ...]
    import_in: str
    env: Mapping[str, str]
    threads: int
    grpc: bool
    lane: str
    spin: float
    allow_pickle: bool
    pool_name: str
    socket_directory: str = ""
    log_level: int = logging.WARNING

    @classmethod
    def make(cls, adapter: object, config: PoolConfig) -> ForkPlan:
        """The plan of a pool; ``adapter`` as in `Pool`. Raises `ConfigError`."""
        store = config.store
        return cls(
            adapter=None if adapter is None else AdapterReference.of(adapter),
            main=_main_data(f"snakepit_mp-{config.name}"),
            store=store.config if isinstance(store, SessionStore) else store,
            preload=config.preload,
            import_in=config.import_in,
            env=config.env,
            threads=config.threads,
            grpc=config.grpc,
            lane=chosen_lane(config.lane),
            spin=chosen_spin(config.spin),
            allow_pickle=config.allow_pickle,
            pool_name=config.name,
            log_level=logging.getLogger().getEffectiveLevel(),
        )

    def with_directory(self, path: str | os.PathLike[str]) -> ForkPlan:
        """The same plan, once the pool's directory of sockets exists."""
        return dataclasses.replace(self, socket_directory=os.fspath(path))

    def known_tools(self, adapter: object) -> Mapping[str, ToolSpec] | None:
        """The tools, where the application can tell: no adapter, or a class in hand."""
        if adapter is None:
            return {}
        return tools_of(adapter) if isinstance(adapter, type) else None

    def environment(self) -> dict[str, str]:
        """The application's environment and what must be set before anything is imported."""
        return {
            **os.environ,
            **dict.fromkeys(THREAD_LIMITS, "1"),
            # gRPC's own fork handlers crash children that a tool forks.
            "GRPC_ENABLE_FORK_SUPPORT": "0",
            **self.env,
        }

    def encode(self) -> bytes:
        return pickle.dumps(self, pickle.HIGHEST_PROTOCOL)

    @classmethod
    def decode(cls, data: bytes) -> ForkPlan:
        plan: ForkPlan = pickle.loads(data)
        return plan


def _main_data(name: str) -> dict[str, Any]:
    """What `multiprocessing.spawn.prepare` needs, without what harms.

    Its own ``get_preparation_data`` adds a key that cannot be pickled, and fixes the start
    method in the application as well as in the child.
    """
    directory = process.ORIGINAL_DIR  # type: ignore[attr-defined]
    data: dict[str, Any] = {
        "name": name,
        "sys_path": [entry or directory or os.getcwd() for entry in sys.path],
        "sys_argv": list(sys.argv),
        "orig_dir": directory,
        "dir": os.getcwd(),
    }
    main = sys.modules["__main__"]
    module_name = _name_of_main(main)
    path = _path_of_main(main, directory)
    if module_name is not None:
        data["init_main_from_name"] = module_name
    elif path is not None:
        data["init_main_from_path"] = path
    return data


def _name_of_main(main: ModuleType) -> str | None:
    """The name that ``python -m`` was given, unless it was a package or a directory."""
    name = getattr(getattr(main, "__spec__", None), "name", None)
    return None if name is None or name.rpartition(".")[2] == "__main__" else name


def _path_of_main(main: ModuleType, directory: str | None) -> str | None:
    """The script that runs, if a script runs: not ``-c``, standard input or a notebook."""
    if getattr(main, "__spec__", None) is not None:
        return None
    file = getattr(main, "__file__", None)
    if file is None:
        return None
    path = Path(directory or "", file)
    return os.path.normpath(path) if path.is_file() else None


def _found(module: str, qualname: str) -> object:
    found: object = sys.modules.get(module)
    for part in qualname.split("."):
        found = getattr(found, part, None)
    return found


def _is_found_elsewhere(module: str) -> bool:
    """Whether another process finds the module, as `preparation` looks for it."""
    if module in ("__main__", "__mp_main__"):
        data = _main_data("")
        return "init_main_from_name" in data or "init_main_from_path" in data
    # Not importlib.util.find_spec: it is content with a module that is imported already.
    parent = module.rpartition(".")[0]
    if parent and not _is_found_elsewhere(parent):
        return False
    path = getattr(sys.modules.get(parent), "__path__", None)
    finders = (getattr(finder, "find_spec", None) for finder in sys.meta_path)
    return any(find(module, path) is not None for find in finders if find is not None)


def _by_value(adapter: type[Adapter]) -> bytes:
    import cloudpickle  # only for classes that no import can find

    module = sys.modules.get(adapter.__module__)
    # By reference is cloudpickle's choice for whatever is imported here under some name.
    register = module is not None and adapter.__module__ not in ("__main__", "__mp_main__")
    if register:
        cloudpickle.register_pickle_by_value(module)
    try:
        return bytes(cloudpickle.dumps(adapter))
    except Exception as error:  # whatever the pickling of a captured object raises
        raise ConfigError(
            f"adapter {adapter.__qualname__} can be imported from no module, and cannot be "
            f"sent by value either: {error}"
        ) from error
    finally:
        if register:
            cloudpickle.unregister_pickle_by_value(module)
