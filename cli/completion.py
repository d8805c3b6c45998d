"""``portclaim completion``: what a shell needs to complete commands, options and names."""

from __future__ import annotations

import click

from portclaim.cli.session import command

SHELLS = ("bash", "zsh", "fish")


@command()
@click.argument("shell", type=click.Choice(SHELLS))
def completion(shell: str) -> None:
    """Print what a shell needs to complete commands, options and names.

    Example: portclaim completion bash > /etc/bash_completion.d/portclaim

    For zsh, write it to a file `_portclaim` in a directory of $fpath; for fish, to
    ~/.config/fish/completions/portclaim.fish. Names of hosts, aliases and claims are asked of the service
    that PORTCLAIM_URL or the configuration names. If it does not answer within a second, none are completed.

    Next: start a new shell, and press Tab after `portclaim describe host `.
    """
    from click.shell_completion import get_completion_class

    from portclaim.cli.main import main

    kind = get_completion_class(shell)
    if kind is None:  # click has all three
        raise AssertionError(shell)
    click.echo(kind(main, {}, "portclaim", "_PORTCLAIM_COMPLETE").source())
