"""What `deploy/` ships agrees with the program: verbs, ports, health checks; nginx reads its file where installed."""

import re
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest
import yaml

from federation import pki
from federation.charter import Charter
from federation.front import VERBS

DEPLOY = Path(__file__).parents[1] / "deploy"
NGINX = (DEPLOY / "nginx.conf").read_text()


def kubernetes(kind: str) -> dict[str, Any]:
    """The manifest of one kind."""
    return next(one for one in yaml.safe_load_all((DEPLOY / "kubernetes.yaml").read_text()) if one["kind"] == kind)


def test_nginx_forwards_the_ten_verbs_and_nothing_else_of_flower() -> None:
    """The same list as the Python front, one rate limit per device key, everything else 404."""
    (listed,) = re.findall(r"\^/v1/fleet/\(([a-z|-]+)\)\$", NGINX)
    assert tuple(listed.split("|")) == VERBS
    assert NGINX.count("proxy_pass") == 2
    assert "location / { return 404; }" in NGINX
    charter = Charter(operator="x")
    assert f"rate={charter.rate:g}r/s" in NGINX
    assert f"burst={charter.burst} " in NGINX
    assert (f":{charter.superlink};" in NGINX, f":{charter.port};" in NGINX) == (True, True)


def test_flower_and_the_console_are_on_no_published_port() -> None:
    """Only the front's port leaves the pod or the compose network."""
    services = yaml.safe_load((DEPLOY / "compose.yaml").read_text())["services"]
    assert [port for one in services.values() for port in one.get("ports", [])] == ["9443:9443"]
    assert services["front"]["network_mode"] == "service:fleet"
    containers = kubernetes("StatefulSet")["spec"]["template"]["spec"]["containers"]
    assert [port["containerPort"] for one in containers for port in one.get("ports", [])] == [9443]
    assert kubernetes("StatefulSet")["spec"]["replicas"] == 1
    assert kubernetes("NetworkPolicy")["spec"]["ingress"] == [{"ports": [{"port": 9443}]}]


def test_everything_that_runs_has_a_health_check() -> None:
    """In compose, in Kubernetes and in the image."""
    services = yaml.safe_load((DEPLOY / "compose.yaml").read_text())["services"]
    assert all("healthcheck" in one for one in services.values())
    containers = kubernetes("StatefulSet")["spec"]["template"]["spec"]["containers"]
    assert all({"readinessProbe", "livenessProbe"} <= set(one) for one in containers)
    assert f":{Charter(operator='x').console}/readyz" in (DEPLOY / "Containerfile").read_text()


@pytest.mark.skipif(shutil.which("nginx") is None, reason="nginx is not installed")
def test_nginx_reads_its_file(tmp_path: Path) -> None:
    """Debian's nginx accepts the configuration with a fleet's own certificates."""
    pki.create_authority(tmp_path)
    config = tmp_path / "nginx.conf"
    config.write_text(NGINX.replace("/tmp/", f"{tmp_path}/").replace("FLEET", str(tmp_path)))
    words = subprocess.run(["nginx", "-t", "-c", str(config)], capture_output=True, text=True, check=False)
    assert words.returncode == 0, words.stderr
