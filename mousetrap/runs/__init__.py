"""One execution of a flow: its jobs, its workers, its end, and the pictures of it."""
