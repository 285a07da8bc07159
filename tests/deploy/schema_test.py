"""Every overlay renders and is what Kubernetes, or the operator of a kind, accepts."""

import kubernetes_validate
import pytest
import yaml
from manifests import OVERLAYS, ROOT, every_overlay, name_of, of_kind, render

# The first version that has all that is used (deploy/README.md), some between, and the newest.
VERSIONS = ("1.30", "1.31", "1.33", "1.35", kubernetes_validate.latest_version())
# Kinds of operators: their schemas are not Kubernetes' own, and are looked at below.
CUSTOM = {
    "ServiceMonitor": "monitoring.coreos.com/v1",
    "PrometheusRule": "monitoring.coreos.com/v1",
    "Certificate": "cert-manager.io/v1",
}


def errors_of(item, version):
    try:
        kubernetes_validate.validate(item, version, strict=True)
    except kubernetes_validate.ValidationError as error:
        path = ".".join(str(part) for part in error.path)
        return [f"{version}: {name_of(item)}: {path}: {error.message}"]
    except kubernetes_validate.SchemaNotFoundError as error:
        return [f"{version}: {error.message}"]
    return []


@pytest.mark.parametrize("version", VERSIONS)
@every_overlay
def test_schemas(overlay, version):
    items = [item for item in render(overlay) if item["kind"] not in CUSTOM]
    assert len(items) > 10
    errors = [error for item in items for error in errors_of(item, version)]
    assert not errors, "\n".join(errors)


@pytest.mark.parametrize("version", VERSIONS)
def test_schema_of_the_export_job(version):
    job = yaml.safe_load((ROOT / "deploy/jobs/export.yaml").read_text())
    job["metadata"]["name"] = "made-by-the-cluster"
    assert errors_of(job, version) == []


def test_the_validation_is_strict():
    item = {"apiVersion": "v1", "kind": "ServiceAccount", "metadata": {"name": "a"}, "unknown": 1}
    assert errors_of(item, "1.31")
    assert errors_of({**item, "kind": "NoSuchKind"}, "1.31")


def test_both_overlays_are_looked_at():
    assert OVERLAYS == ["kind", "production"]


@every_overlay
def test_names_are_unique_and_in_the_namespace(overlay):
    items = [i for i in render(overlay) if i["kind"] != "Namespace"]
    names = [name_of(item) for item in items]
    assert len(names) == len(set(names))
    assert {item["metadata"].get("namespace") for item in items} == {"attic"}


def test_shapes_of_custom_kinds():
    custom = of_kind("production", *CUSTOM)
    assert {i["kind"]: i["apiVersion"] for i in custom} == CUSTOM
    assert not of_kind("kind", *CUSTOM), "a new kind cluster knows none of them"


def test_certificate():
    spec = of_kind("production", "Certificate")[0]["spec"]
    assert set(spec) == {
        "secretName", "commonName", "usages", "duration", "renewBefore", "privateKey", "issuerRef"}
    assert spec["usages"] == ["client auth"]
    assert set(spec["issuerRef"]) == {"group", "kind", "name"}
    hours = {key: int(spec[key].removesuffix("h")) for key in ("duration", "renewBefore")}
    assert 0 < hours["renewBefore"] < hours["duration"]
    assert spec["privateKey"] == {"algorithm": "ECDSA", "size": 256, "rotationPolicy": "Always"}


def test_namespaces_enforce_the_restricted_standard():
    for overlay in OVERLAYS:
        labels = of_kind(overlay, "Namespace")[0]["metadata"]["labels"]
        assert labels["pod-security.kubernetes.io/enforce"] == "restricted"
