"""Remembers: sessions and variables in shared memory."""
