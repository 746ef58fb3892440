"""Does: the threads, processes and timers of the application."""
