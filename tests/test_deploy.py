"""The files of deploy/: valid by Ray's schema and by bash, and their commands exist."""

import json
import re
import shlex
import subprocess
from pathlib import Path
from typing import Any

import click
import pytest
import yaml

from vitsearch.cli import cli

DEPLOY = Path(__file__).parent.parent / "deploy"
COMMAND = re.compile(r"vitsearch ((?:embed|push) [^\n#]*)")


def commands() -> list[list[str]]:
    """Return the arguments of each command of vitsearch in the files."""
    services = yaml.safe_load((DEPLOY / "compose.yaml").read_text())["services"]
    lines = [text for file in sorted(DEPLOY.iterdir()) for text in COMMAND.findall(joined(file))]
    lines += [
        service["command"] for service in services.values() if service["image"] == "vitsearch"
    ]
    # a command may be the end of a quoted text
    return [shlex.split(line if line.count('"') % 2 == 0 else line.rstrip('"')) for line in lines]


def joined(file: Path) -> str:
    return "" if file.name == "README.md" else file.read_text().replace("\\\n", " ")


@pytest.mark.parametrize("arguments", commands(), ids=" ".join)
def test_commands_exist(arguments: list[str]) -> None:
    context = click.Context(cli)
    command = cli.get_command(context, arguments[0])
    assert command is not None
    values, _, _ = command.make_parser(click.Context(command)).parse_args(arguments[1:])
    assert values


def test_there_are_commands() -> None:
    names = [arguments[0] for arguments in commands()]
    assert (names.count("embed"), names.count("push"), names.count("serve")) == (3, 1, 1)


def test_the_cluster_is_valid_by_the_schema_of_ray() -> None:
    jsonschema = pytest.importorskip("jsonschema", reason="extra [ray]")
    ray: Any = pytest.importorskip("ray", reason="extra [ray]")
    schema = Path(ray.__file__).parent / "autoscaler" / "ray-schema.json"
    cluster = yaml.safe_load((DEPLOY / "ray-cluster.yaml").read_text())
    jsonschema.validate(cluster, json.loads(schema.read_text()))


def test_the_script_is_bash() -> None:
    subprocess.run(["bash", "-n", DEPLOY / "embed.slurm"], check=True)
