"""The manual pages: one of each command, and nothing in them that roff would take as its own."""

import shutil
import subprocess
from pathlib import Path

import click
import pytest

from docs._generate import command_line, manual
from portclaim.cli.main import main

CONTEXTS = {
    context.command_path: context
    for context in command_line.commands(click.Context(main, info_name="portclaim"))
}


@pytest.mark.parametrize("path", CONTEXTS)
def test_a_page_has_every_option_and_a_name_that_apropos_can_read(path: str) -> None:
    context = CONTEXTS[path]
    page = manual.page(context)
    dashed = path.replace(" ", "-").replace("-", r"\-")
    assert f"\n{dashed} \\- " in page
    for parameter in context.command.get_params(context):
        for option in (*parameter.opts, *parameter.secondary_opts):
            if isinstance(parameter, click.Option) and not parameter.hidden:
                assert option.replace("-", r"\-") in page


@pytest.mark.skipif(shutil.which("groff") is None, reason="groff is not installed")
def test_groff_takes_all_pages_without_a_warning(tmp_path: Path) -> None:
    assert manual.write(tmp_path) == len(CONTEXTS)
    pages = sorted(map(str, tmp_path.iterdir()))
    said = subprocess.run(
        ["groff", "-man", "-Tutf8", "-ww", *pages], capture_output=True, text=True, check=True, timeout=60
    )
    assert said.stderr == ""
    assert "portclaim describe claim" in said.stdout


def test_text_that_looks_like_a_request_stays_text() -> None:
    @click.command(help=".so /etc/passwd\n\n'tis a \\fB test")
    def odd() -> None:
        """Nothing."""

    page = manual.page(click.Context(odd, info_name="odd"))
    assert r"\&.so /etc/passwd" in page.splitlines()
    assert r"\&'tis a \efB test" in page.splitlines()
