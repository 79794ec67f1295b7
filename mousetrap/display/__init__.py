"""How values are shown: safe text, tables, progress and sparklines.

Nothing here knows of messages or brokers.
"""
