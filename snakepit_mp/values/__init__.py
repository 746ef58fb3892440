"""Encodes values, and knows their types and constraints."""
