"""The one exception that a user's mistake or a damaged file ends in."""


class UserError(ValueError):
    """What is wrong, where, and the way out, in one message; the command line exits with 2."""
