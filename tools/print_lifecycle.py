"""Print the life of a worker as a Mermaid diagram, from the table that the library obeys."""

from __future__ import annotations

import sys

from snakepit_mp.core.lifecycle import diagram

if __name__ == "__main__":
    sys.stdout.write(diagram())
