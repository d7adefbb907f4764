"""Errors that are the input's, not the program's."""

from typing import Self

import click


class BadInputError(click.ClickException, ValueError):
    """Data, parameters or environment are not as they must be.

    The message is one line: what is wrong, where, what is allowed, what to do. On the command line
    it is printed as it is, without a traceback; in Python it is a ValueError.
    """


class BadSettingError(BadInputError):
    """A parameter is not as it must be.

    Attributes:
        path: of the setting, such as `experiments.vgg16.training.weights`; the config loader says
            in front of the message where it stands.
    """

    def __init__(self, message: str, path: str):
        super().__init__(message)
        self.path = path

    def __reduce__(self) -> tuple[type[Self], tuple[str, str]]:
        """Go to another process, which exceptions with two arguments otherwise cannot."""
        return type(self), (self.message, self.path)


def find_bad_input(error: BaseException | None) -> BadInputError | None:
    """Return the BadInputError behind an error that Kedro wrapped around it, if there is one."""
    while error is not None:
        if isinstance(error, BadInputError):
            return error
        error = error.__cause__
    return None
