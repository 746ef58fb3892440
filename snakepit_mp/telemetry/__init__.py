"""Tells what the pool does."""
