"""docs/scale.md: scripts that bash can read, manifests whose names fit, settings that params accept."""

import re
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest
from pydantic import TypeAdapter
from ruamel.yaml import YAML

from stages.lib.params.run import Endpoints, Engine, RayEngine
from stages.lib.params.teacher import ServedTeacher
from stages.lib.serving import endpoints

ROOT = Path(__file__).resolve().parents[1]
PAGES = [ROOT / "docs" / "scale.md", ROOT / "docs" / "zh" / "scale.md"]
pages = pytest.mark.parametrize("page", PAGES, ids=["en", "zh"])


def blocks(page: Path, kind: str) -> list[str]:
    return re.findall(rf"^```{kind}\n(.*?)^```$", page.read_text(encoding="utf-8"), re.MULTILINE | re.DOTALL)


def loaded(page: Path) -> list[dict[str, Any]]:
    return [YAML(typ="safe").load(block) for block in blocks(page, "yaml")]


@pages
def test_bash_reads_every_script(page: Path) -> None:
    scripts = blocks(page, "sh")
    assert sum(script.startswith("#!/bin/bash\n#SBATCH") for script in scripts) == 2
    for script in scripts:
        done = subprocess.run(["bash", "-n"], input=script, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stderr


@pages
def test_the_script_for_two_nodes_waits_for_the_servers_of_both(
    page: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Where two roles ask the model, each server stands in params.yaml twice."""
    (condition,) = re.findall(r"^until (.*); do", page.read_text(encoding="utf-8"), re.MULTILINE)
    monkeypatch.chdir(tmp_path)
    params = tmp_path / "params.yaml"
    shutil.copy(ROOT / "profiles" / "article.yaml", params)
    for number, node in enumerate(("node-a", "node-b"), start=1):
        endpoints.add(params, ["teacher", "judge"], [f"http://{node}:{port}/v1" for port in (8000, 8001)])
        done = subprocess.run(["bash", "-c", condition], check=False)
        assert (done.returncode == 0) == (number == 2), params.read_text(encoding="utf-8")


@pages
def test_every_variable_of_a_command_is_one_of_the_makefile(page: Path) -> None:
    known = set(re.findall(r"^(?:export )?([A-Z_]+) \?=", (ROOT / "Makefile").read_text(), re.MULTILINE))
    text = "\n".join(re.sub(r"#.*", "", line) for block in blocks(page, "sh") for line in block.splitlines())
    used = {
        name for line in re.findall(r"make (?:teacher|plan) (.*)", text) for name in re.findall(r"([A-Z_]+)=", line)
    }
    assert used
    assert used <= known


@pages
def test_the_manifests_fit_together(page: Path) -> None:
    manifests = {each["kind"]: each for each in loaded(page) if "kind" in each}
    assert {kind: each["apiVersion"] for kind, each in manifests.items()} == {
        "Service": "v1",
        "StatefulSet": "apps/v1",
        "Job": "batch/v1",
    }
    service, servers = manifests["Service"], manifests["StatefulSet"]["spec"]
    labels = servers["template"]["metadata"]["labels"]
    assert labels == servers["selector"]["matchLabels"] == service["spec"]["selector"]
    assert servers["serviceName"] == service["metadata"]["name"]
    (container,) = servers["template"]["spec"]["containers"]
    port = service["spec"]["ports"][0]["port"]
    assert container["ports"] == [{"containerPort": port}]
    assert container["readinessProbe"]["httpGet"] == {"path": "/health", "port": port}
    words = dict(zip(container["command"], container["command"][1:], strict=False))
    assert words["--port"] == str(port)
    assert words["--tensor-parallel-size"] == container["resources"]["limits"]["nvidia.com/gpu"]
    (run,) = (each["run"] for each in loaded(page) if "endpoints" in each.get("run", {}))
    teacher = Endpoints.model_validate(run["endpoints"]).teacher
    assert teacher
    addresses = [each.base_url for each in teacher.servers]
    name = manifests["StatefulSet"]["metadata"]["name"]
    assert addresses == [f"http://{name}-{n}.{name}:{port}/v1" for n in range(servers["replicas"])]
    (own,) = (each["distill"]["teacher"] for each in loaded(page) if "distill" in each)
    assert ServedTeacher.model_validate(own).model == words["--served-model-name"] == words["serve"]


@pages
def test_params_accept_the_engine(page: Path) -> None:
    (run,) = (each["run"] for each in loaded(page) if "engine" in each.get("run", {}))
    assert isinstance(TypeAdapter(Engine).validate_python(run["engine"]), RayEngine)


@pages
def test_every_volume_that_is_mounted_is_there(page: Path) -> None:
    for each in loaded(page):
        if each.get("kind") in ("StatefulSet", "Job"):
            pod = each["spec"]["template"]["spec"]
            mounted = {mount["name"] for container in pod["containers"] for mount in container["volumeMounts"]}
            assert mounted == {volume["name"] for volume in pod["volumes"]}
