"""The errors that a user sees: one line that says what is wrong and what to do about it.

Everything else that is raised is a bug. The command line prints the message alone and exits with `exit_code`;
`--debug` shows the traceback.
"""


class TinyformerError(Exception):
    """Something failed while running: a file is damaged, the disk is full, the loss is not finite."""

    exit_code = 1


class UsageError(TinyformerError):
    """The request itself cannot be carried out: an unknown name, a negative size, contradictory options."""

    exit_code = 2
