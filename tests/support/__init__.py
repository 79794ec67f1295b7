"""What several test files share: waiting, messages, processes, hostile text, Jupyter, database."""
