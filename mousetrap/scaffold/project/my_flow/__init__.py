"""A flow of two stages: rows of text become readings, and readings become reports."""

from my_flow.converting import convert
from my_flow.parsing import parse

flow = [parse, convert]
