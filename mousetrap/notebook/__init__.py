"""Working with queues from a notebook: consumers that a cell may start again, and a live display.

`registry` keeps the background consumers of this process, and `handle` is what a cell gets for one
of them. `source_digest` says which source of a handler runs. `panel` shows workers and runs:
`stats_source`, `run_stats`, `worker_stats` and `rate` supply the figures, `panel_words` what is
said of them, `panel_html` and `panel_text` draw it, and `live` keeps it up to date in its cell.
`cell_traceback` is how a cell shows an error of the package.
None of it needs a notebook: it works in a terminal or a script as well. Nothing here imports
IPython; a process that is a kernel has imported it already.
"""
