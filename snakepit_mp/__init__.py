"""A process pool whose workers may die, with sessions in shared memory."""
