"""The documentation names only existing things, and the pages generated from the code are complete."""

from __future__ import annotations

import re
from importlib.metadata import entry_points
from pathlib import Path

import click
import pytest

from docs._generate import check, command_line, configuration, http_api, plug_ins, rpc
from portclaim.cli.main import main
from portclaim.services.api.app import create_app
from portclaim.services.api.problems import STATUSES, name_of

ROOT = Path(__file__).parents[2]
NAMED = re.compile(r"(?<![\w/.-])((?:[\w-]+/)*[\w-]+\.(?:py|sql|md|toml|txt|in|conf|sample))(?![\w/])")
FOLDER = re.compile(r"`((?:[\w-]+/)+)`")
PAGES = [
    "docs/architecture.md",
    "CONTRIBUTING.md",
    "SECURITY.md",
    *sorted(str(page.relative_to(ROOT)) for page in (ROOT / "docs/decisions").iterdir()),
]


@pytest.mark.parametrize("name", PAGES)
def test_files_and_folders_that_a_page_names_exist(name: str) -> None:
    page = re.sub(r"\]\([^)]*\)", "]", (ROOT / name).read_text())  # make docs checks the links
    text = "\n".join(re.findall(r"`[^`\n]+`", page))
    files = {file for file in NAMED.findall(text) if "/" in file}
    missing = {file for file in files if not (ROOT / file).is_file()}
    missing |= {folder for folder in FOLDER.findall(text) if not (ROOT / folder).is_dir()}
    assert not missing, f"{name} names {sorted(missing)}"
    assert files or "decisions" in name or name == "SECURITY.md"


def test_functions_named_in_the_architecture_page_are_in_the_named_files() -> None:
    page = (ROOT / "docs/architecture.md").read_text()
    places = re.findall(r"`([\w.]+)`(?: and `\w+`)?\s+in\s+`([\w/]+\.(?:py|sql))`", page)
    assert len(places) > 15
    for name, file in places:
        last = name.rpartition(".")[2]
        definition = re.compile(rf"\b(?:def|class|FUNCTION|VIEW) {last}\b")
        assert definition.search((ROOT / file).read_text()), f"{name} is not in {file}"


def test_the_glossary_has_each_word_once_and_in_order() -> None:
    page = (ROOT / "docs/glossary.md").read_text()
    words = re.findall(r"^### (.+)\n\n\S", page, re.MULTILINE)
    assert len(words) > 80
    assert words == sorted(set(words), key=str.casefold)


def test_the_configuration_page_has_every_option() -> None:
    for page, ours in ((configuration.page(), True), (configuration.libraries(), False)):
        for section in configuration.sections(ours=ours):
            for option in section.options:
                assert f"#{section.name}.{option.dest} }}" in page
                assert option.help, f"[{section.name}] {option.name} has no help"


def test_the_command_line_page_has_every_command_and_option() -> None:
    page = command_line.page()
    for context in command_line.commands(click.Context(main, info_name="portclaim")):
        assert f"## {context.command_path} {{" in page
        assert context.command.help
        options = [each for each in context.command.params if isinstance(each, click.Option)]
        assert all(flag in page for option in options for flag in option.opts)


def test_choices_are_shown_as_they_are_typed() -> None:
    for context in command_line.commands(click.Context(main, info_name="portclaim")):
        for parameter in context.command.params:
            if isinstance(parameter.type, click.Choice):
                assert all(type(choice) is str for choice in parameter.type.choices), parameter.name


def test_the_rpc_page_has_every_method_message_and_error() -> None:
    page = rpc.page()
    for client, endpoint in rpc.SERVICES:
        exposed = {name for name, method in vars(endpoint).items() if hasattr(method, "exposed")}
        described = {method.name for method in rpc.methods(client, endpoint)}
        assert described == exposed
        assert all(f"#{client.topic}.{name} }}" in page for name in described)
    links = set(re.findall(r"\]\(#(\w+)\)", page))
    assert links <= set(re.findall(r"\{ #(\w+) \}", page))
    assert all(f"{{ #{kind.__name__} }}" in page for kind in rpc.error_classes())
    unexplained = re.findall(r"^\| `(\w+)` \|.*\|\s*\|$", page, re.MULTILINE)
    assert not unexplained


def test_the_http_page_has_every_path_and_problem() -> None:
    page, problems = http_api.page(), http_api.problems_page()
    for path, methods in create_app(None).openapi()["paths"].items():
        assert all(f"### {method.upper()} {path} {{" in page for method in methods)
    names = {name_of(kind) for kind in STATUSES}
    assert names == set(re.findall(r"^## ([a-z-]+) ", problems, re.MULTILINE))
    assert set(re.findall(r"problems\.md#([a-z-]+)", page)) <= names
    assert (
        not set(re.findall(r"rpc\.md#(\w+)", page))
        - set(re.findall(r"\{ #(\w+) \}", rpc.page()))
        - {"messages"}
    )


def test_the_plug_in_page_has_every_plug_in() -> None:
    page = plug_ins.page()
    for namespace in ("portclaim.hypervisor", "portclaim.packing"):
        plugs = entry_points(group=namespace)
        assert plugs
        assert all(f"| `{plug.name}` |" in page for plug in plugs)


def test_the_check_of_the_site_finds_faults(tmp_path: Path) -> None:
    (tmp_path / "other.html").write_text('<h2 id="there">There</h2>')
    (tmp_path / "index.html").write_text("""
        <script src="https://example.org/x.js"></script> <img src="missing.png">
        <link href="//example.org/x.css">
        <a href="other.html#there">good</a> <a href="https://example.org/">good</a> <a href="#">good</a>
        <a href="other.html#not-there">anchor</a> <a href="missing.html">page</a> <a href="https:/x">form</a>
    """)
    found = list(check.faults(tmp_path))
    wrong = ["example.org/x.js", "missing.png", "example.org/x.css", "#not-there", "missing.html", "https:/x"]
    assert len(found) == len(wrong)
    assert all(any(part in fault for fault in found) for part in wrong)


def test_every_page_is_in_the_navigation(tmp_path: Path) -> None:
    (tmp_path / "docs").mkdir()
    (tmp_path / "docs/found.md").touch()
    (tmp_path / "docs/lost.md").touch()
    config = tmp_path / "zensical.toml"
    config.write_text('[project]\nnav = [{ "A" = [{ "B" = "found.md" }, { "C" = "gone.md" }] }]\n')
    assert len(list(check.not_in_navigation(tmp_path / "docs", config))) == 2
