"""Working with queues from a notebook: consumers that a cell may start again and again, and a view.

`registry` knows the consumers of this kernel, `handle` is what a cell holds of one, `version` says
which source it runs, `output` keeps what handlers print; `panel` shows what goes on. None of it
needs a notebook: in a terminal or a script it does the same. Nothing here imports IPython before
there is a kernel that has done so.
"""
