"""Speaks the public gRPC protocol ``snakepit.bridge``."""
