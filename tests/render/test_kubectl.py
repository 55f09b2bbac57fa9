"""A real kubectl applies the command's resources to a server that accepts only valid ones."""

import json
import subprocess
from pathlib import Path

import pytest
import yaml

from scaleobs._render.output import applied_bytes, rules_text
from scaleobs.objectives import Latency
from support.command import call
from support.kubernetes_api import api_server
from support.operator_schema import MOST_ANNOTATED

RULES = "/apis/monitoring.coreos.com/v1/namespaces/{}/prometheusrules/{}"
MAPS = "/api/v1/namespaces/{}/configmaps/{}"
KEPT_IN = "kubectl.kubernetes.io/last-applied-configuration"
SHIPPED = Path(__file__).parents[2] / "alert_rules" / "prometheusrule.yaml"


@pytest.fixture
def cluster(tool, tmp_path):
    """Return a function that runs kubectl on a text, and what the server keeps by path."""
    with api_server() as (address, kept):
        command = [tool("kubectl"), f"--server={address}", "--kubeconfig=/dev/null", f"--cache-dir={tmp_path}/cache"]

        def kubectl(*arguments, text=""):
            return subprocess.run(
                [*command, *arguments],
                input=text,
                capture_output=True,
                text=True,
                check=False,
                timeout=60,
                env={"HOME": str(tmp_path), "NO_PROXY": "*"},
            )

        yield kubectl, kept


def of_routes(count):
    """Return so many objectives, each for a route with characters that take more space in Go's JSON."""
    return [Latency(99, under=0.5, route=f"/ä<{number}>&") for number in range(count)]


@pytest.mark.parametrize(("format_", "path"), [("prometheusrule", RULES), ("configmap", MAPS)])
def test_resource_is_applied(cluster, format_, path):
    """
    It is created in its namespace, is unchanged the second time, and follows changes.
    """
    kubectl, kept = cluster
    flags = ["--service", "orders", "--format", format_, "--namespace", "ops", "--label", "release=prometheus"]
    text = call("rules", *flags).stdout
    where = path.format("ops", "scaleobs-orders")
    outcomes = [kubectl("apply", "-f", "-", text=text) for _ in range(2)]
    of_first = json.loads(json.dumps(kept[where]))
    outcomes.append(kubectl("apply", "-f", "-", text=call("rules", *flags, "--set", "ServiceDown.for=9m").stdout))

    assert [0, 0, 0] == [one.returncode for one in outcomes], [one.stderr for one in outcomes]
    assert ["created", "unchanged", "configured"] == [one.stdout.split()[-1] for one in outcomes]
    assert [where] == list(kept)
    del of_first["metadata"]["annotations"]
    assert yaml.safe_load(text) == of_first
    assert "9m" in str(kept[where])


def test_file_of_several_services_is_applied(cluster, tmp_path):
    """
    Each service has a resource of its own, in the namespace of the kubectl command.
    """
    kubectl, kept = cluster
    config = tmp_path / "scaleobs.toml"
    config.write_text('format = "prometheusrule"\n[[services]]\nservice = "a"\n[[services]]\nservice = "b"\n')
    result = kubectl("apply", "-n", "shop", "-f", "-", text=call("rules", "--config", config).stdout)

    assert 0 == result.returncode, result.stderr
    assert {RULES.format("shop", f"scaleobs-{name}") for name in "ab"} == set(kept)


def test_shipped_resource_is_applied_on_the_server_side_too(cluster):
    """
    The file of alert_rules can be applied without changes, in both ways of kubectl.
    """
    kubectl, kept = cluster
    results = [kubectl("apply", *how, "-f", str(SHIPPED)) for how in ([], ["--server-side", "--force-conflicts"])]

    assert [0, 0] == [result.returncode for result in results], [result.stderr for result in results]
    assert [RULES.format("default", "scaleobs")] == list(kept)


@pytest.mark.parametrize("format_", ["prometheusrule", "configmap"])
def test_unknown_field_is_refused(cluster, format_):
    """
    The server refuses a misspelt key by name.
    """
    kubectl, kept = cluster
    text = rules_text("orders", format_=format_).replace("metadata:\n", "metadata:\n  colour: red\n", 1)
    result = kubectl("apply", "-f", "-", text=text)

    assert 1 == result.returncode
    assert "'colour' was unexpected" in result.stderr
    assert {} == kept


@pytest.mark.servers
def test_size_is_counted_as_kubectl_counts_it(cluster):
    """
    The largest ConfigMap that isn't refused is applied, and the annotation of kubectl has the computed size.
    """
    kubectl, kept = cluster
    text = ""
    for count in range(5, 100):
        try:
            text = rules_text("orders", objectives=of_routes(count), format_="configmap")
        except ValueError as error:
            refused = str(error)
            break
    result = kubectl("apply", "-n", "n" * 63, "-f", "-", text=text)

    assert 0 == result.returncode, result.stderr
    annotated = kept[MAPS.format("n" * 63, "scaleobs-orders")]["metadata"]["annotations"][KEPT_IN]
    assert applied_bytes(yaml.safe_load(text)) == len(annotated.encode()) + len(KEPT_IN)
    assert "bytes, and kubectl apply can keep 262,144: give fewer objectives of routes" in refused


@pytest.mark.servers
@pytest.mark.parametrize("count", [10, 40])
def test_rule_for_server_side_apply_is_marked(cluster, count):
    """
    Without the note kubectl applies it as usual; and the size is the computed one.
    """
    kubectl, _ = cluster
    text = rules_text("orders", objectives=of_routes(count), format_="prometheusrule")
    result = kubectl("apply", "-f", "-", text=text)
    on_server = kubectl("apply", "--server-side", "--force-conflicts", "-f", "-", text=text)
    is_large = "# It has more than the 262,144 bytes that kubectl apply can keep: give it --server-side." in text

    assert (count == 40) == is_large
    assert is_large == (result.returncode == 1), result.stderr
    assert is_large == ("metadata.annotations: Too long" in result.stderr)
    assert 0 == on_server.returncode, on_server.stderr


def test_server_refuses_what_is_too_large(cluster):
    """
    The limit is the server's, and is for all annotations of a resource.
    """
    kubectl, _ = cluster
    data = {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "a"}, "data": {"a": "x" * MOST_ANNOTATED}}
    refused = kubectl("apply", "-f", "-", text=json.dumps(data))
    accepted = kubectl("apply", "--server-side", "-f", "-", text=json.dumps(data))

    assert (1, 0) == (refused.returncode, accepted.returncode), accepted.stderr
    assert "metadata.annotations: Too long: must have at most 262144 bytes" in refused.stderr


@pytest.mark.parametrize("format_", ["prometheus", "prometheusrule", "configmap"])
def test_helm_makes_the_same_text_of_it(cluster, format_, tmp_path):
    """
    Helm's templates are Go's text/template, which kubectl prints by, too: it renders the escaped text as the plain one.
    """
    kubectl, _ = cluster
    kubectl("apply", "-f", "-", text=rules_text("orders", format_="configmap"))
    flags = ["--service", "orders", "--slo", "availability=99.9", "--slo", "latency=99:0.5:/a{b}", "--format", format_]
    plain, escaped = call("rules", *flags).stdout, call("rules", *flags, "--helm").stdout
    template = tmp_path / "template"
    made = {}
    for name, text in (("plain", plain), ("escaped", escaped)):
        template.write_text(text, encoding="utf-8")
        made[name] = kubectl("get", "configmap", "scaleobs-orders", f"--output=go-template-file={template}")

    assert 0 == made["escaped"].returncode, made["escaped"].stderr
    assert plain == made["escaped"].stdout.replace(" --helm", "")
    assert 0 != made["plain"].returncode
    assert "undefined variable" in made["plain"].stderr
    assert "{{`{{ $labels.job }}`}}" in escaped
