"""What oslo.config finds wrong, said without the values, because one of them may be a password."""

from __future__ import annotations

from oslo_config import cfg, iniparser

MISSING_NAMES = (cfg.NoSuchOptError, cfg.NoSuchGroupError, cfg.TemplateSubstitutionError)
"""What it raises for a ``$`` that begins no name of an option. What it names is a part of the value."""

DOLLAR = "has a $ that begins no name of an option: write $$ for one $"


def explained(error: cfg.Error) -> str:
    """The message of an error. That of a line which cannot be parsed would have the line."""
    if not isinstance(error, cfg.ConfigFileParseError):
        return str(error)
    cause = error.__context__
    if not isinstance(cause, iniparser.ParseError):
        return f"{error.config_file} cannot be parsed"
    return f"{error.config_file}, line {cause.lineno}, cannot be parsed: {cause.msg}"
