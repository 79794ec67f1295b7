"""One execution of a flow: its jobs, its workers, its end, its dead letters and its pictures."""
