"""What the tests share: changed copies of params.yaml, the development data, running a stage and being refused by one."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import click
import pytest
from click.testing import CliRunner, Result
from ruamel.yaml import YAML

ROOT = Path(__file__).resolve().parents[1]


@pytest.fixture
def project_params(tmp_path: Path) -> Callable[..., Path]:
    """``project_params({"collect.size": 5})``: the path of a copy of params.yaml with these values in it."""

    def write(changes: dict[str, Any] | None = None) -> Path:
        yaml = YAML()
        params = yaml.load(ROOT / "params.yaml")
        for key, value in (changes or {}).items():
            *sections, name = key.split(".")
            section = params
            for part in sections:
                section = section[part]
            section[name] = value
        path = tmp_path / "params.yaml"
        yaml.dump(params, path)
        return path

    return write


@pytest.fixture(scope="session")
def development_data() -> Path:
    """The folder of public data that lies beside a development checkout; it is no part of the repository."""
    folder = ROOT.parent / "shared" / "data"
    if not folder.is_dir():
        pytest.skip("no development data: ../shared/data is absent")
    return folder


@pytest.fixture
def runs() -> Callable[..., Result]:
    """``runs(main, "--rows", path, …)``: run a stage's command; it must end well."""

    def run(command: click.Command, *arguments: object) -> Result:
        result = CliRunner().invoke(command, [str(argument) for argument in arguments])
        assert result.exit_code == 0, result.output + repr(result.exception)
        return result

    return run


@pytest.fixture
def refuses(tmp_path: Path) -> Callable[..., str]:
    """``refuses(main, "--rows", path, …)``: the one line on stderr of a command that must end with exit code 1.

    A traceback, a second line or a half-written file under tmp_path fails the test.
    """

    def run(command: click.Command, *arguments: object) -> str:
        result = CliRunner().invoke(command, [str(argument) for argument in arguments])
        assert isinstance(result.exception, SystemExit), repr(result.exception)
        assert result.exit_code == 1, result.output
        assert result.stderr.startswith("Error: ")
        assert len(result.stderr.splitlines()) == 1, result.stderr
        assert not list(tmp_path.rglob("*.tmp"))
        return result.stderr.removeprefix("Error: ").rstrip("\n")

    return run
