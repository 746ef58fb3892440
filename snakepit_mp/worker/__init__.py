"""Runs tools: what happens in the child, after the fork."""
