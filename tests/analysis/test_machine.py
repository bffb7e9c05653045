import platform

import numpy as np

from tinyformer.analysis.machine import describe_machine


def test_the_machine_is_described_in_short_texts():
    facts = describe_machine()
    assert list(facts) == ["versions", "backends", "BLAS", "machine"]
    assert all(isinstance(value, str) and value for section in facts.values() for value in section.values())
    assert facts["versions"]["python"] == platform.python_version()
    assert facts["versions"]["numpy"] == np.__version__
    assert facts["backends"]["numpy"] == "works"
