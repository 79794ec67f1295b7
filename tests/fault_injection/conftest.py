"""The injector's tests belong to the tier of faults."""


def pytest_itemcollected(item):
    """Let ``-k faults`` select them, as it selects the tests in ``tests/faults/``."""
    item.extra_keyword_matches.add("faults")
