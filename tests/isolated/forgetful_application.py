"""An application that ends without `Pool.shutdown`, while a client's tool is running."""

from __future__ import annotations

import sys

from pool_adapters import Tools

from snakepit_mp import Pool


def main() -> None:
    pool = Pool(Tools, workers=1)
    pool.await_ready()
    print(pool.bridge_address, flush=True)
    sys.stdin.readline()


if __name__ == "__main__":
    main()
