"""The one exception that means: the user can fix this, and the message says how."""


class UserError(Exception):
    """A mistake in the user's input: what is wrong, with which file or setting, what to do.

    The command line prints it as one line and ends with exit code 2.
    """
