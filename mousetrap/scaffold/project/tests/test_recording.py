"""The functions still do what they did in a recorded run.

If they are meant to do something else now, record another run: change the package, run the
notebook, and then, in a new cell of it, ``run.save("../tests/first_run.jsonl")``.
"""

from pathlib import Path

from mousetrap import Recording

from my_flow import flow

recording = Recording.load(Path(__file__).with_name("first_run.jsonl"))

test_first_run = recording.test(*flow)  # calls each stage again, without a broker
