"""The one kind of error that a user is meant to read."""


class SubflError(Exception):
    """Something the user can mend: one sentence that says what, where, and what is allowed.

    The command line prints the sentence without a stack trace and exits with code 2.
    """


class RunFailure(SubflError):
    """A run that was asked for in order failed on its way; the command line exits with code 1."""
