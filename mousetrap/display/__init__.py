"""How things are shown: tables, progress lines and sparklines.

Nothing here knows of messages or brokers.
"""
