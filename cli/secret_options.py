"""Options that are URLs with a password: from the environment or a file, never as an argument."""

from __future__ import annotations

import click
from click.core import ParameterSource

from portclaim.common.errors import InvalidConfiguration
from portclaim.common.secret_files import SUFFIX, from_environment
from portclaim.common.secret_urls import has_password


def given_secretly(context: click.Context, parameter: click.Parameter, value: str | None) -> str | None:
    """The callback of an option with an environment variable: the URL, or what ``VARIABLE_FILE`` names.

    Raises ``click.UsageError`` for a password in an argument, because every user of the machine can read the
    arguments of all processes.
    """
    variable = str(parameter.envvar)
    if context.get_parameter_source(str(parameter.name)) is ParameterSource.COMMANDLINE:
        if value is not None and has_password(value):
            raise click.UsageError(
                f"{parameter.opts[0]} has a password, and other users of this machine can read arguments: "
                f"set {variable} to the URL, or {variable}{SUFFIX} to a file that has it",
                context,
            )
        return value
    try:
        return from_environment(variable) or value
    except InvalidConfiguration as error:
        raise click.UsageError(error.message, context) from None
