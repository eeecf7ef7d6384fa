"""Facts of runs that were never trained: texts by seed, and predictions that are mostly right."""

import numpy as np
import pytest
from report_facts import class_facts, number_facts


@pytest.fixture
def rng():
    return np.random.default_rng(5)


@pytest.fixture(scope="session")
def facts():
    """Two classes; the model is right 9 times of 10, the bag of words 7 times."""
    return class_facts()


@pytest.fixture(scope="session")
def numbers():
    """Numbers between 80 and 100."""
    return number_facts()
