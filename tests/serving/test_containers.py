"""Dockerfile and compose.yaml, as text: no container runs here."""

import re
import tomllib
from pathlib import Path

import pytest
import yaml

from cxrnet.cli.app import compose_config
from cxrnet.workflows.settings import Serve

TOP = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def docker() -> list[tuple[str, str]]:
    text = (TOP / "Dockerfile").read_text(encoding="utf-8").replace("\\\n", " ")
    lines = [line.strip() for line in text.splitlines() if line.strip() and not line.startswith("#")]
    return [tuple(line.split(maxsplit=1)) for line in lines]


def test_the_dockerfile_copies_what_is_there_and_runs_as_nobody_in_particular(docker):
    names = [name for name, _ in docker]
    assert names[0] == "FROM"
    assert set(names) <= {"FROM", "ARG", "ENV", "WORKDIR", "RUN", "COPY", "USER", "EXPOSE", "HEALTHCHECK", "CMD"}
    assert ":latest" not in docker[0][1]
    copied = [word for name, words in docker if name == "COPY" for word in words.split()[:-1]]
    kept = {line.removeprefix("!") for line in (TOP / ".dockerignore").read_text(encoding="utf-8").splitlines()[1:]}
    assert set(copied) == kept
    assert all((TOP / name).exists() for name in copied)
    assert names.index("USER") < names.index("CMD")
    assert dict(docker)["USER"] not in ("root", "0")


def test_the_extras_and_bounds_of_the_dockerfile_are_those_of_the_project(docker):
    project = tomllib.loads((TOP / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    runs = " ".join(words for name, words in docker if name == "RUN")
    extras = re.search(r'"\.\[([\w,]+)\]"', runs)[1].split(",")
    assert set(extras) <= set(project["optional-dependencies"])
    for package in re.findall(r'"(torch\S*?)"', runs):
        assert package in project["dependencies"]


def test_the_command_of_the_dockerfile_composes(docker):
    command = dict(docker)["CMD"]
    python, option, module, *words = yaml.safe_load(command)
    assert (python, option, module) == ("python", "-m", "cxrnet.serve")
    config = compose_config(Serve, words)
    exposed = int(dict(docker)["EXPOSE"])
    assert (config.host, config.port, config.bundle) == ("0.0.0.0", exposed, "/run-of-model")
    assert f":{exposed}/healthz" in dict(docker)["HEALTHCHECK"]


def test_compose_names_what_it_uses_and_opens_no_port_to_others():
    compose = yaml.safe_load((TOP / "compose.yaml").read_text(encoding="utf-8"))
    assert set(compose["services"]) == {"serve", "mlflow", "database"}
    known = {"build", "image", "command", "read_only", "tmpfs", "environment", "volumes", "ports", "depends_on"}
    for name, service in compose["services"].items():
        assert set(service) <= known | {"healthcheck", "restart"}, name
        assert all(port.startswith("127.0.0.1:") for port in service.get("ports", []))
        assert set(service.get("depends_on", {})) <= set(compose["services"])
        volumes = [volume.rpartition("}")[2].split(":")[0] for volume in service.get("volumes", [])]
        assert {volume for volume in volumes if volume} <= set(compose["volumes"])
    assert compose["services"]["serve"]["volumes"] == ["${CXRNET_RUN:?the folder of a run}:/run-of-model:ro"]
    assert "postgresql://mlflow@database" in compose["services"]["mlflow"]["command"][2]
