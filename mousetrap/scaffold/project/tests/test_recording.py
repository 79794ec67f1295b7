"""The functions still do what they did in a recorded run.

To record another run: give `mousetrap.run` the option ``keep_bodies=100_000``, as the notebook
does, and call ``run.save("tests/first_run.jsonl")`` when it is settled.
"""

from pathlib import Path

from mousetrap import Recording

from my_flow import flow

recording = Recording.load(Path(__file__).with_name("first_run.jsonl"))

test_first_run = recording.test(*flow)  # calls each stage again, without a broker
