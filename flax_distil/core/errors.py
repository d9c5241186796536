"""The errors that end a command with a sentence and no traceback."""


class InputError(ValueError):
    """A problem with something that the user gave: a flag, a file, a column, a checkpoint.

    The message is one clear sentence (or a short list) that names the thing, its
    value and the remedy. The command line prints it without a traceback and exits
    with status 2, so raise it before anything is compiled, downloaded or written.
    """


class Interrupted(BaseException):
    """A command was stopped before its end, and the same command goes on.

    The message is one sentence. The command line prints it and exits with status 75. It is no ``Exception``,
    as it may be raised anywhere and must not be taken for a fault of what was going on there.
    """
