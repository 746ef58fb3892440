"""Can a pool read handwriting while its workers are killed? Real images, a real model.

A kernel machine learns 1,000 of scikit-learn's 1,797 hand-written digits. What it has
learned and its settings go into a session, which lives in shared memory; the workers read
all the images in batches, with what they find in the session. Half way one worker that is at
work is killed with SIGKILL. The run goes on, and what it reads is, image for image, what the
same model reads in one process.

    python examples/digits.py [--workers N] [--batch N]

Needs the extra ``digits``: scikit-learn, which brings the images, and tqdm.
"""

from __future__ import annotations

import argparse
import os
import signal
import sys
import time
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from tqdm import tqdm

from snakepit_mp import Adapter, Pool, Session, SessionContext, WorkerInfo, tool

LEARNED = 1_000

#: The label of an image that the model is not sure of.
UNSURE = -1

#: The settings of a run: type, value and constraints of each variable.
SETTINGS: dict[str, tuple[str, Any, dict[str, Any]]] = {
    "brightest": ("integer", 16, {"min": 1, "max": 255}),  # the value of a white pixel
    "gamma": ("float", 0.2, {"min": 0.0}),  # how fast likeness falls with distance
    "threshold": ("float", 0.3, {"min": 0.0, "max": 1.0}),  # the best score below it: UNSURE
}
#: What was learned: the images (n, 64), and how much each speaks for every digit (n, 10).
WEIGHTS = ("examples", "coefficients")


# --- the model: the same code in the workers and in one process ---


def to_vectors(images: np.ndarray, brightest: int) -> np.ndarray:
    """Images (n, 8, 8) as vectors (n, 64) of brightness 0 to 1."""
    return images.reshape(-1, 64) / brightest


def likeness(these: np.ndarray, those: np.ndarray, gamma: float) -> np.ndarray:
    """How alike are vectors? 1 where they are equal, towards 0 with their distance: (n, m)."""
    squares = (these**2).sum(axis=1)[:, None] + (those**2).sum(axis=1) - 2 * these @ those.T
    alike: np.ndarray = np.exp(-gamma * squares)
    return alike


def read_digits(images: np.ndarray, model: Mapping[str, Any]) -> np.ndarray:
    """The digit on each of ``images`` (n, 8, 8), or `UNSURE`: integers (n,)."""
    vectors = to_vectors(images, model["brightest"])
    scores = likeness(vectors, model["examples"], model["gamma"]) @ model["coefficients"]
    return np.where(scores.max(axis=1) < model["threshold"], UNSURE, scores.argmax(axis=1))


class DigitReader(Adapter):
    """What every worker can do. It keeps nothing: all that matters is in the session."""

    @tool(idempotent=True, required_variables=[*WEIGHTS, *SETTINGS])
    def read(self, images: np.ndarray, ctx: SessionContext) -> dict[str, Any]:
        """Read one batch; tell who did, and at which attempt."""
        return {"labels": read_digits(images, ctx), "pid": os.getpid(), "attempt": ctx.attempt}


# --- the application ---


def with_progress(results: Iterable[Any], total: int) -> Iterator[Any]:
    """Pass on ``results``, with a bar on a terminal and a few plain lines elsewhere."""
    if sys.stderr.isatty():
        yield from tqdm(results, desc="reading", total=total, unit=" batches")
        return
    for count, result in enumerate(results, 1):
        yield result
        if count % max(total // 4, 1) == 0:
            print(f"reading: {count} of {total} batches", flush=True)


def load_images() -> tuple[np.ndarray, np.ndarray]:
    """The images (n, 8, 8), of brightness 0 to 16, and the digits (n,) on them."""
    # Here, since the workers have no need of scikit-learn.
    from sklearn.datasets import load_digits

    data = load_digits()
    return data.images, data.target


def train(images: np.ndarray, digits: np.ndarray) -> dict[str, np.ndarray]:
    """Learn which digit is on which image; the weights by name."""
    from sklearn.kernel_ridge import KernelRidge

    examples = to_vectors(images, SETTINGS["brightest"][1])
    machine = KernelRidge(kernel="rbf", gamma=SETTINGS["gamma"][1], alpha=0.01)
    machine.fit(examples, np.eye(10)[digits])
    return dict(zip(WEIGHTS, (examples, machine.dual_coef_), strict=True))


def remember(session: Session, weights: Mapping[str, np.ndarray]) -> None:
    """Put the model into the session, typed and constrained."""
    for name, array in weights.items():
        session.register_variable(name, "tensor", array, constraints={"shape": array.shape})
    for name, (kind, value, constraints) in SETTINGS.items():
        session.register_variable(name, kind, value, constraints=constraints)


def batches(images: np.ndarray, size: int) -> Iterator[dict[str, np.ndarray]]:
    for start in range(0, len(images), size):
        yield {"images": images[start : start + size]}


@dataclass
class Casualty:
    """The worker that was killed, and what became of its place."""

    before: WorkerInfo
    killed_at: float
    after: WorkerInfo | None = None
    seconds: float = 0.0

    @classmethod
    def choose(cls, pool: Pool) -> Casualty:
        """Kill a worker, one that is at work if there is one."""
        victim = max(pool.workers(), key=lambda worker: worker.state == "EXECUTING")
        if victim.pid is None:
            raise RuntimeError(f"worker {victim.id} has no process: {victim.state}")
        os.kill(victim.pid, signal.SIGKILL)
        return cls(victim, time.monotonic())

    def look(self, pool: Pool) -> None:
        """Note when the place is taken again."""
        now = pool.workers()[self.before.id]
        serving = now.state in ("READY", "EXECUTING")
        if self.after is None and serving and now.incarnation > self.before.incarnation:
            self.after, self.seconds = now, time.monotonic() - self.killed_at


@dataclass
class Run:
    """What the pool read, how fast, and at what price."""

    labels: np.ndarray
    seconds: float
    casualty: Casualty
    reruns: int  # batches that went back to the line, since their worker died
    repeated: list[int]  # those among them that it had begun
    readers: set[int]  # the pids of all workers that read


def read_all(pool: Pool, session: Session, images: np.ndarray, batch: int) -> Run:
    """Read every image in the pool, and kill a worker half way."""
    total = -(-len(images) // batch)
    labels, repeated, readers = [], [], set()
    casualty: Casualty | None = None
    began = time.monotonic()
    results = pool.map("read", batches(images, batch), session_id=session.id)
    for number, result in enumerate(with_progress(results, total), 1):
        labels.append(result["labels"])
        readers.add(result["pid"])
        if result["attempt"] > 1:
            repeated.append(number)
        if casualty is not None:
            casualty.look(pool)
        elif number >= total // 2:
            casualty = Casualty.choose(pool)
    seconds = time.monotonic() - began
    assert casualty is not None
    pool.await_ready(workers=pool.config.workers)
    casualty.look(pool)
    return Run(np.concatenate(labels), seconds, casualty, pool.stats().rerun, repeated, readers)


def report(run: Run, digits: np.ndarray) -> None:
    count, unseen = len(digits), run.labels[LEARNED:]
    print(f"\n{count:,} images in {run.seconds:.2f} s: {count / run.seconds:,.0f} images a second")
    report_casualty(run)
    right = np.mean(unseen == digits[LEARNED:])
    print(f"{right:.1%} of the {len(unseen)} images it had not learned were read correctly,")
    print(f"  and {np.sum(unseen == UNSURE)} are left to a human")


def report_casualty(run: Run) -> None:
    before, after = run.casualty.before, run.casualty.after
    print(f"worker {before.id}: pid {before.pid} was killed with SIGKILL while {before.state}")
    if run.repeated:
        print(f"  batch {run.repeated[0]}, which it was reading, was read again by another worker")
    elif run.reruns:
        print("  the batch that it was given, but had not begun, went to another worker")
    if after is not None:
        print(
            f"  pid {after.pid}, incarnation {after.incarnation}, took its place within "
            f"{1000 * run.casualty.seconds:.0f} ms{' and read on' * (after.pid in run.readers)}"
        )


def main() -> int:
    options = parse_options()
    images, digits = load_images()
    began = time.monotonic()
    weights = train(images[:LEARNED], digits[:LEARNED])
    print(f"learned {LEARNED:,} images in {time.monotonic() - began:.1f} s")
    with Pool(DigitReader, workers=options.workers) as pool, pool.session() as session:
        remember(session, weights)
        pool.await_ready(workers=options.workers)
        print(f"{options.workers} workers, each reached over its {pool.workers()[0].lane} lane")
        run = read_all(pool, session, images, options.batch)
    report(run, digits)
    settings = {name: value for name, (_, value, _) in SETTINGS.items()}
    different = np.flatnonzero(run.labels != read_digits(images, {**weights, **settings}))
    if different.size:
        print(f"NOT as in one process: images {different.tolist()}", file=sys.stderr)
        return 1
    print("image for image as in one process")
    return 0


def parse_options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n", 1)[0])
    parser.add_argument("--workers", type=int, default=2, help="worker processes (2)")
    parser.add_argument("--batch", type=int, default=8, help="images in a batch (8)")
    options = parser.parse_args()
    if options.workers < 1 or options.batch < 1:
        parser.error("--workers and --batch must be at least 1")
    return options


if __name__ == "__main__":
    sys.exit(main())
