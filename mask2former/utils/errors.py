"""The one exception for mistakes that a user can mend."""


class UserError(ValueError):
    """A mistake in a recipe, a path, a file or the data, told in one message.

    The message names the file, the value found, what was expected, and the key or flag to change.
    The programs at the top level (`train_net.py`, `demo/`) print it without a traceback and exit with status 2.
    """

    def __init__(self, message: str):
        super().__init__(message)
