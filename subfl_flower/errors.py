"""The one kind of error that a user is meant to read."""


class SubflError(Exception):
    """An error that the user can mend: one sentence that states the problem, its place, and the allowed values.

    The command line prints the sentence without a stack trace and exits with code 2.
    """


class RunFailure(SubflError):
    """A valid run failed while running; the command line exits with code 1."""
