"""The stage parse.

Prototyped in ``notebooks/prototype.ipynb``.
"""

from dataclasses import dataclass

from mousetrap import Reject, stage


@dataclass
class Reading:
    """What a thermometer has measured."""

    city: str
    celsius: float


@stage(reads="rows", writes="readings")
def parse(row: str) -> Reading:
    """Read a row such as ``Oslo, 3.5``."""
    city, _, number = row.partition(",")
    try:
        return Reading(city.strip(), float(number))
    except ValueError:
        raise Reject("there is no number after the comma") from None
