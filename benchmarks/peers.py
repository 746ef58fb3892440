"""Who else runs functions in other processes? Each peer in its default form, warm, by one interface.

But for one thing: they start their processes by a fork server where they would fork this process,
which has threads, and could hang for ever.

Not all are installed everywhere: a benchmark of one that is not is skipped, and says so.
"""

from __future__ import annotations

import contextlib
import functools
import multiprocessing
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Executor, ProcessPoolExecutor
from dataclasses import dataclass
from typing import Any

import pytest

__all__ = ["CONTEXT", "PEERS", "Peer"]


@dataclass(frozen=True)
class Peer:
    """``call(function, value)`` runs it and waits; ``map`` does so for many, in order.

    ``threads``: whether several threads may call at a time. ``submit`` gives what waits for the
    result; not every peer has that.
    """

    call: Callable[[Callable[[Any], Any], Any], Any]
    map: Callable[[Callable[[Any], Any], Iterable[Any]], Iterable[Any]]
    threads: bool = True
    submit: Callable[[Callable[[Any], Any], Any], Callable[[], Any]] | None = None


def _of_executor(executor: Executor) -> Peer:
    return Peer(
        lambda function, value: executor.submit(function, value).result(),
        lambda function, values: executor.map(function, values),
        submit=lambda function, value: executor.submit(function, value).result,
    )


CONTEXT = multiprocessing.get_context("forkserver")


@contextlib.contextmanager
def _process_pool_executor(workers: int) -> Iterator[Peer]:
    with ProcessPoolExecutor(workers, mp_context=CONTEXT) as executor:
        yield _of_executor(executor)


@contextlib.contextmanager
def _multiprocessing_pool(workers: int) -> Iterator[Peer]:
    with CONTEXT.Pool(workers) as pool:
        yield Peer(
            lambda function, value: pool.apply(function, (value,)),
            pool.imap,
            submit=lambda function, value: pool.apply_async(function, (value,)).get,
        )
        pool.close()
        pool.join()


@contextlib.contextmanager
def _loky(workers: int) -> Iterator[Peer]:
    loky = pytest.importorskip("loky")
    executor = loky.ProcessPoolExecutor(workers)
    try:
        yield _of_executor(executor)
    finally:
        executor.shutdown(kill_workers=True)


@contextlib.contextmanager
def _pebble(workers: int) -> Iterator[Peer]:
    pebble = pytest.importorskip("pebble")
    with pebble.ProcessPool(workers, context=CONTEXT) as pool:
        yield Peer(
            lambda function, value: pool.schedule(function, (value,)).result(),
            lambda function, values: pool.map(function, values).result(),
            submit=lambda function, value: pool.schedule(function, (value,)).result,
        )


@contextlib.contextmanager
def _deadpool(workers: int) -> Iterator[Peer]:
    deadpool = pytest.importorskip("deadpool")
    with deadpool.Deadpool(workers, mp_context=CONTEXT) as executor:
        yield _of_executor(executor)


@contextlib.contextmanager
def _mpire(workers: int) -> Iterator[Peer]:
    mpire = pytest.importorskip("mpire")
    with mpire.WorkerPool(workers, keep_alive=True, start_method="forkserver") as pool:
        # It hangs for ever where several threads call `apply`.
        yield Peer(lambda function, value: pool.apply(function, (value,)), pool.imap, threads=False)


@contextlib.contextmanager
def _joblib(workers: int) -> Iterator[Peer]:
    joblib = pytest.importorskip("joblib")
    with joblib.Parallel(workers) as parallel:
        yield Peer(
            lambda function, value: parallel([joblib.delayed(function)(value)])[0],
            lambda function, values: parallel(joblib.delayed(function)(v) for v in values),
            threads=False,
        )


@contextlib.contextmanager
def _dask(workers: int) -> Iterator[Peer]:
    distributed = pytest.importorskip("distributed")
    with (
        distributed.LocalCluster(
            n_workers=workers, threads_per_worker=1, processes=True, dashboard_address=None
        ) as cluster,
        distributed.Client(cluster) as client,
    ):
        yield Peer(
            lambda function, value: client.submit(function, value, pure=False).result(),
            lambda function, values: client.gather(client.map(function, list(values), pure=False)),
            submit=lambda function, value: client.submit(function, value, pure=False).result,
        )


@contextlib.contextmanager
def _ray(workers: int) -> Iterator[Peer]:
    ray = pytest.importorskip("ray")
    ray.init(num_cpus=workers, include_dashboard=False, log_to_driver=False)
    try:
        run = ray.remote(lambda function, value: function(value))
        yield Peer(
            lambda function, value: ray.get(run.remote(function, value)),
            lambda function, values: ray.get([run.remote(function, value) for value in values]),
            submit=lambda function, value: functools.partial(ray.get, run.remote(function, value)),
        )
    finally:
        ray.shutdown()


PEERS: dict[str, Callable[[int], contextlib.AbstractContextManager[Peer]]] = {
    "ProcessPoolExecutor": _process_pool_executor,
    "multiprocessing.Pool": _multiprocessing_pool,
    "loky": _loky,
    "pebble": _pebble,
    "deadpool": _deadpool,
    "mpire": _mpire,
    "joblib": _joblib,
    "dask": _dask,
    "ray": _ray,
}
