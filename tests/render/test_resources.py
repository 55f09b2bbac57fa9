"""Resources that Kubernetes would refuse are refused earlier, and the schema of the tests is strict."""

import copy

import pytest
import yaml

from scaleobs._render.output import for_helm, metadata, rules_text
from scaleobs.objectives import Availability, Latency
from support.operator_schema import faults

RULE = yaml.safe_load(rules_text("orders", format_="prometheusrule", namespace="ops", labels=["release=prometheus"]))
MAP = yaml.safe_load(rules_text("orders", format_="configmap"))
RECORD = next(rule for rule in RULE["spec"]["groups"][2]["rules"] if "record" in rule)
ALERT = next(rule for rule in RULE["spec"]["groups"][0]["rules"] if "alert" in rule)

MISTAKES = {
    "a key beside spec": lambda it: it.update(status={}),
    "another version": lambda it: it.update(apiVersion="monitoring.coreos.com/v2"),
    "a key in metadata": lambda it: it["metadata"].update(colour="red"),
    "a name in capitals": lambda it: it["metadata"].update(name="Orders"),
    "a namespace with a point": lambda it: it["metadata"].update(namespace="a.b"),
    "a label that is a number": lambda it: it["metadata"]["labels"].update(release=1),
    "a label with a blank": lambda it: it["metadata"]["labels"].update(release="a b"),
    "no groups": lambda it: it["spec"].pop("groups"),
    "a key in spec": lambda it: it["spec"].update(group=[]),
    "a key in a group": lambda it: it["spec"]["groups"][0].update(every="30s"),
    "a group without a name": lambda it: it["spec"]["groups"][0].pop("name"),
    "two groups of one name": lambda it: it["spec"]["groups"].append(it["spec"]["groups"][0]),
    "an interval in words": lambda it: it["spec"]["groups"][0].update(interval="2 min"),
    "an interval in parts": lambda it: it["spec"]["groups"][0].update(interval="1.5m"),
    "an interval as a number": lambda it: it["spec"]["groups"][0].update(interval=30),
    "units in the wrong order": lambda it: it["spec"]["groups"][0].update(interval="5s1m"),
    "a limit as a text": lambda it: it["spec"]["groups"][0].update(limit="5"),
    "a rule of nothing": lambda it: it["spec"]["groups"][0]["rules"].append({"expr": "up"}),
    "a rule without an expression": lambda it: it["spec"]["groups"][0]["rules"].append({"record": "a:b:c"}),
    "both": lambda it: it["spec"]["groups"][0]["rules"].append({**ALERT, "record": "a:b:c"}),
    "a record that waits": lambda it: it["spec"]["groups"][0]["rules"].append({**RECORD, "for": "5m"}),
    "a record with texts": lambda it: it["spec"]["groups"][0]["rules"].append({**RECORD, "annotations": {"a": "b"}}),
    "a misspelt key of a rule": lambda it: it["spec"]["groups"][0]["rules"].append({**ALERT, "keep_firing": "5m"}),
    "an empty wait": lambda it: it["spec"]["groups"][0]["rules"].append({**ALERT, "for": ""}),
    "an annotation of nothing": lambda it: it["spec"]["groups"][0]["rules"].append(
        {**ALERT, "annotations": {"a": None}}
    ),
    "a label of a rule that is true": lambda it: it["spec"]["groups"][0]["rules"].append(
        {**ALERT, "labels": {"a": True}}
    ),
}
MISTAKES_OF_MAPS = {
    "another kind": lambda it: it.update(kind="Secret"),
    "a key beside data": lambda it: it.update(binary={}),
    "a file that is no text": lambda it: it["data"].update(a={"b": "c"}),
    "a file of another directory": lambda it: it["data"].update({"a/b": "c"}),
    "nothing": lambda it: it["data"].clear(),
    "too much": lambda it: it["data"].update(a="x" * 1024 * 1024),
}


@pytest.mark.parametrize(
    ("resource", "mistake"),
    [*((RULE, name) for name in MISTAKES), *((MAP, name) for name in MISTAKES_OF_MAPS)],
    ids=lambda it: it if isinstance(it, str) else it["kind"],
)
def test_schema_finds_mistakes(resource, mistake):
    """
    The valid resource passes, and each planted mistake does not.
    """
    wrong = copy.deepcopy(resource)
    (MISTAKES if resource is RULE else MISTAKES_OF_MAPS)[mistake](wrong)

    assert [] == faults(resource)
    assert [] != faults(wrong)


@pytest.mark.parametrize("key", ["keep_firing_for", "query_offset"])
def test_schema_has_the_keys_of_the_operator(key):
    """
    Unused keys of the operator's definition are allowed.
    """
    right = copy.deepcopy(RULE)
    group = right["spec"]["groups"][0]
    (group if key == "query_offset" else group["rules"][-1])[key] = "5m"

    assert [] == faults(right)


@pytest.mark.parametrize("service", [None, "orders", "Shop/Orders.v2:api_", "a" * 200])
@pytest.mark.parametrize("format_", ["prometheusrule", "configmap"])
def test_strict_server_accepts_the_resource(service, format_):
    """
    For any name of a service, and any objectives.
    """
    objectives = [Availability(99.9), Latency(99, under=1), Latency(95, under=0.25, route="/o/{id:int}")]
    labels = ["release=prometheus", "app.kubernetes.io/part-of=shop", "empty=", "a.b-c_d=1"]
    text = rules_text(service, objectives=objectives, format_=format_, namespace="ops", labels=labels)
    resource = yaml.safe_load(text)

    assert [] == faults(resource)
    assert ("ops", "1", "") == (
        resource["metadata"]["namespace"],
        resource["metadata"]["labels"]["a.b-c_d"],
        resource["metadata"]["labels"]["empty"],
    )


@pytest.mark.parametrize("service", [None, "orders"])
def test_config_map_holds_the_rule_file(service):
    """
    It has the name of the resource, and the command in its header, as has the resource.
    """
    text = rules_text(service, format_="configmap")
    ((name, file),) = yaml.safe_load(text)["data"].items()

    assert ("scaleobs-orders.yaml" if service else "scaleobs.yaml") == name
    assert rules_text(service).partition("\n")[2] == file.partition("\n")[2]
    assert text.partition("\n")[0] == file.partition("\n")[0]


@pytest.mark.parametrize(
    "label",
    [
        *(
            "release",
            "=a",
            "a=b c",
            "a b=c",
            "-a=b",
            "a=-b",
            "a=b=c",
            "a/=b",
            "/a=b",
            "A.b/c=d",
            "a/b/c=d",
            "ä=b",
            "a=ä",
        ),
        *("a=b\n", f"{'a' * 64}=b", f"a={'b' * 64}", f"{'a.' * 127}/b=c"),
    ],
)
def test_impossible_label_is_refused(label):
    """
    The message shows how labels are written.
    """
    with pytest.raises(ValueError, match=r"The label .* is not valid: write it like release=prometheus, name"):
        metadata("a", labels=[label])


@pytest.mark.parametrize("label", [f"{'a' * 63}={'b' * 63}", f"{'a.' * 126}a/b=c", "a=", "9=9", "x.y/A_b.c-d=e"])
def test_possible_label_is_taken(label):
    """
    Up to the limits of Kubernetes.
    """
    assert {"labels": dict([label.split("=")]), "name": "a"} == metadata("a", labels=[label])


@pytest.mark.parametrize("namespace", ["", "A", "a.b", "a_b", "-a", "a-", "a b", "a\n", "a" * 64, "ä"])
def test_impossible_namespace_is_refused(namespace):
    """
    The message has the allowed characters.
    """
    with pytest.raises(ValueError, match=r"The namespace .* is not valid: give 1 to 63 lower-case letters"):
        metadata("a", namespace)


@pytest.mark.parametrize(
    ("text", "escaped"),
    [
        ("{{ $labels.job }}", "{{`{{ $labels.job }}`}}"),
        ("{{ $a | urlquery }}{{- $b -}}", "{{`{{ $a | urlquery }}`}}{{`{{- $b -}}`}}"),
        ('{{ printf "%s}" $a }}', '{{`{{`}} printf "%s}" $a }}'),
        ("{{ `a` }} }}", "{{`{{`}} `a` }} }}"),
        ("{{{ a }}", "{{`{{`}}{ a }}"),
        ('{a="b{2}"}', '{a="b{2}"}'),
    ],
)
def test_braces_are_escaped_for_helm(text, escaped):
    """
    A whole template if a raw string can hold it, otherwise its opening braces.
    """
    assert escaped == for_helm(text)
