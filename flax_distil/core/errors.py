"""The error for mistakes of the user, as opposed to mistakes in the code."""


class InputError(ValueError):
    """A problem with something that the user gave: a flag, a file, a column, a checkpoint.

    The message is one clear sentence (or a short list) that names the thing, its
    value and the remedy. The command line prints it without a traceback and exits
    with status 2, so raise it before anything is compiled, downloaded or written.
    """
