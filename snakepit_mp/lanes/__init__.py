"""Carries a request to one worker, and its reply back."""
