"""The stage convert.

Prototyped in ``notebooks/prototype.ipynb``.
"""

from dataclasses import dataclass

from mousetrap import stage

from my_flow.parsing import Reading


@dataclass
class Report:
    """A reading in both scales."""

    city: str
    celsius: float
    fahrenheit: float


@stage(reads="readings", writes="reports")
def convert(reading: Reading) -> Report:
    """Add the temperature in degrees Fahrenheit."""
    return Report(reading.city, reading.celsius, reading.celsius * 9 / 5 + 32)
