"""The error that a program reports to its user."""


class TaskError(Exception):
    """An error that the user can correct; the program reports it in one line and exits with 2."""
