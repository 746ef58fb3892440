"""Decides: one state machine; events in, instructions out."""
