"""The tests here compare with torch and transformers, which take seconds to import; `-m oracle` asks for them."""

import re


def pytest_ignore_collect(config):
    """Not even import what is not asked for. Where it is asked for, a missing torch is an error."""
    return None if re.search(r"(?<!not )\boracle\b", config.option.markexpr) else True
