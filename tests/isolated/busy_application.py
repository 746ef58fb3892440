"""An application with a busy pool, to be killed: tools that spawn children, workers that die."""

from __future__ import annotations

import os
import subprocess
import sys

from snakepit_mp import Adapter, Pool, tool
from snakepit_mp.errors import WorkerDied


class Busy(Adapter):
    @tool
    def spawn(self) -> int:
        return subprocess.Popen([sys.executable, "-c", "import time; time.sleep(600)"]).pid

    @tool
    def fork(self) -> None:
        if os.fork() == 0:
            while True:
                pass

    @tool
    def die(self) -> None:
        os.kill(os.getpid(), 9)


def main() -> None:
    with Pool(Busy, workers=2) as pool:
        print("made", flush=True)
        while True:
            for command in ("spawn", "fork", "die"):
                try:
                    pool.execute(command)
                except WorkerDied:
                    pass


if __name__ == "__main__":
    main()
