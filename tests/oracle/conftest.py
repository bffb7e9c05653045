"""The tests here compare with torch and transformers, which take seconds to import; `-m oracle` asks for them."""


def pytest_ignore_collect(config):
    """Not even import what `-m "not oracle"` would deselect. Where they are asked for, a missing torch is an error."""
    return True if "not oracle" in config.option.markexpr else None
