"""Working with queues in a notebook: what runs in this kernel, and how it shows itself.

Nothing here imports IPython before there is a kernel that has done so.
"""
