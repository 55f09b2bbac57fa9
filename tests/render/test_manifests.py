"""The deployment files fit each other and the service."""

import subprocess
from pathlib import Path

import yaml

from scaleobs._render.output import rules_text
from scaleobs.settings import Settings

INTEGRATIONS = Path(__file__).parents[2] / "integrations"
DEPLOYMENT, SERVICE, MONITOR = (
    yaml.safe_load((INTEGRATIONS / "kubernetes" / f"{name}.yaml").read_text(encoding="utf-8"))
    for name in ("deployment", "service", "servicemonitor")
)
POD = DEPLOYMENT["spec"]["template"]
(CONTAINER,) = POD["spec"]["containers"]
PORTS = {port["name"]: port["containerPort"] for port in CONTAINER["ports"]}


def test_probes_request_what_the_service_answers():
    """
    Each probe requests the default path of its endpoint, on a port that the container has.
    """
    paths = Settings()
    probes = {name: CONTAINER[name]["httpGet"] for name in ("startupProbe", "readinessProbe", "livenessProbe")}

    assert {
        "startupProbe": paths.startup_path,
        "readinessProbe": paths.ready_path,
        "livenessProbe": paths.health_path,
    } == {name: probe["path"] for name, probe in probes.items()}
    assert {3000} == {PORTS[probe["port"]] for probe in probes.values()}


def test_selectors_match_labels():
    """
    Deployment and Service select the pods, the spread counts them, the ServiceMonitor selects the Service.
    """
    labels = POD["metadata"]["labels"]
    (spread,) = POD["spec"]["topologySpreadConstraints"]

    assert labels == DEPLOYMENT["spec"]["selector"]["matchLabels"]
    assert labels == spread["labelSelector"]["matchLabels"]
    assert labels == SERVICE["spec"]["selector"]
    assert SERVICE["metadata"]["labels"].items() >= MONITOR["spec"]["selector"]["matchLabels"].items()


def test_ports_lead_to_the_container():
    """
    Requests and scrapes have a port each, both lead to the container's, and the ServiceMonitor scrapes the second.
    """
    ports = {port["name"]: port for port in SERVICE["spec"]["ports"]}
    (endpoint,) = MONITOR["spec"]["endpoints"]

    assert {"http": 3000, "metrics": 9090} == {name: port["port"] for name, port in ports.items()}
    assert {3000} == {PORTS[port["targetPort"]] for port in ports.values()}
    assert "metrics" == endpoint["port"]
    assert Settings().metrics_path == endpoint["path"]


def test_job_is_the_service_that_the_rules_select():
    """
    The ServiceMonitor takes the job from the Service's label, and the PrometheusRule selects that job.
    """
    job = SERVICE["metadata"]["labels"][MONITOR["spec"]["jobLabel"]]

    assert "orders" == job
    assert f'up{{job="{job}"}}' in rules_text(job, format_="prometheusrule")


def test_settings_in_the_environment_are_understood():
    """
    The variables are ones that the service reads.
    """
    environment = {variable["name"]: variable["value"] for variable in CONTAINER["env"]}
    settings = Settings.read({}, environment)

    assert ("orders", "production") == (settings.service, settings.environment)


def test_container_may_do_little():
    """
    Not root, no new privileges, nothing writable but /tmp, and a limit for its memory.
    """
    security = CONTAINER["securityContext"]
    (mount,) = CONTAINER["volumeMounts"]

    assert POD["spec"]["securityContext"]["runAsNonRoot"] is True
    assert security["readOnlyRootFilesystem"] is True
    assert security["allowPrivilegeEscalation"] is False
    assert ["ALL"] == security["capabilities"]["drop"]
    assert {"/tmp": "tmp"} == {mount["mountPath"]: mount["name"]}
    assert ["tmp"] == [volume["name"] for volume in POD["spec"]["volumes"] if "emptyDir" in volume]
    assert "memory" in CONTAINER["resources"]["limits"]
    assert {"cpu", "memory"} == set(CONTAINER["resources"]["requests"])


def test_prometheus_accepts_the_configuration(tmp_path, tool):
    """
    With the rules beside it, as in its README, promtool finds the configuration and its rules valid.
    """
    (tmp_path / "scaleobs.yaml").write_text(rules_text(), encoding="utf-8")
    path = tmp_path / "prometheus.yml"
    path.write_bytes((INTEGRATIONS / "prometheus" / "prometheus.yml").read_bytes())

    result = subprocess.run([tool("promtool"), "check", "config", path], capture_output=True, text=True, check=False)

    assert 0 == result.returncode, result.stdout + result.stderr
    assert "SUCCESS: 1 rule files found" in result.stdout
