"""What every pod keeps to, and that its programs understand their arguments."""

import re
import subprocess

import pytest
import yaml
from manifests import (
    BIN, ROOT, argument, bytes_of, containers, every_overlay, name_of, named, of_kind, pod_labels,
    pod_of, pod_owners, render)

USER_ID = 65532


def store_of(overlay):
    return named(overlay, "StatefulSet", "attic-store")


def variables_of(overlay, container):
    """{name: value, or None where the cluster fills it in} of a container's environment."""
    variables = {}
    for source in container.get("envFrom", []):
        variables.update(named(overlay, "ConfigMap", source["configMapRef"]["name"])["data"])
    for variable in container.get("env", []):
        assert "value" in variable or "valueFrom" in variable
        variables[variable["name"]] = variable.get("value")
    return variables


def expanded(overlay, container, text):
    """A text with $(NAME) filled in as far as the manifests say."""
    variables = variables_of(overlay, container)
    for name in re.findall(r"\$\((\w+)\)", text):
        assert name in variables, f"$({name}) is not set"
        text = text.replace(f"$({name})", variables[name] or "")
    return text


@every_overlay
def test_pods_are_confined(overlay):
    for owner in pod_owners(overlay):
        pod = pod_of(owner)
        security = pod["securityContext"]
        assert security["runAsNonRoot"] is True, name_of(owner)
        assert security["runAsUser"] == security["runAsGroup"] == security["fsGroup"] == USER_ID
        assert security["seccompProfile"] == {"type": "RuntimeDefault"}
        assert pod["automountServiceAccountToken"] is False
        assert pod["serviceAccountName"] == "attic"
        assert not {"hostNetwork", "hostPID", "hostIPC"} & pod.keys()
        for volume in pod.get("volumes", []):
            assert "hostPath" not in volume
    account = named(overlay, "ServiceAccount", "attic")
    assert account["automountServiceAccountToken"] is False


@every_overlay
def test_containers_are_confined(overlay):
    for owner, container in containers(overlay):
        assert container["securityContext"] == {
            "allowPrivilegeEscalation": False,
            "readOnlyRootFilesystem": True,
            "capabilities": {"drop": ["ALL"]},
        }, name_of(owner)


def test_the_export_job_keeps_to_the_same():
    job = yaml.safe_load((ROOT / "deploy/jobs/export.yaml").read_text())
    pod = pod_of(job)
    store = pod_of(store_of("production"))
    assert pod["containers"][0]["securityContext"] == store["containers"][0]["securityContext"]
    assert pod["securityContext"].items() <= store["securityContext"].items()
    assert pod["securityContext"]["runAsNonRoot"] and pod["automountServiceAccountToken"] is False
    assert pod["containers"][0]["image"] == store["containers"][0]["image"]
    # Without it the stores' policy keeps the pod out.
    assert pod_labels(job)["attic-client"] == "true"
    service = named("production", "Service", "attic")
    address = f"attic.attic.svc:{service['spec']['ports'][0]['port']}"
    assert f"--server={address}" in pod["containers"][0]["args"]


@every_overlay
def test_containers_have_resources_and_probes(overlay):
    for owner, container in containers(overlay):
        for bound in ("requests", "limits"):
            assert {"cpu", "memory"} <= container["resources"][bound].keys(), name_of(owner)
        ports = {port["containerPort"] for port in container["ports"]}
        names = {port["name"] for port in container["ports"]}
        for probe in ("startupProbe", "livenessProbe", "readinessProbe"):
            check = container[probe].get("grpc") or container[probe]["httpGet"]
            assert check["port"] in ports | names, f"{name_of(owner)}: {probe}"
        startup = container["startupProbe"]
        assert startup["failureThreshold"] * startup["periodSeconds"] >= 60


@every_overlay
def test_probes_of_stores(overlay):
    container = pod_of(store_of(overlay))["containers"][0]
    port = int(argument(container, "--health-listen").rsplit(":", 1)[1])
    assert container["startupProbe"]["grpc"] == {"port": port}
    assert container["livenessProbe"]["grpc"] == {"port": port}
    assert container["readinessProbe"]["grpc"] == {"port": port, "service": "ready"}
    startup = container["startupProbe"]
    assert startup["failureThreshold"] * startup["periodSeconds"] >= 600


@every_overlay
def test_ports_are_those_the_programs_listen_on(overlay):
    listening = {"--listen": "grpc", "--health-listen": "health", "--metrics-listen": "metrics"}
    for owner, container in containers(overlay):
        if not container["command"][0].startswith("attic-"):
            continue
        ports = {port["name"]: port["containerPort"] for port in container["ports"]}
        found = {
            listening[flag]: int(value.rsplit(":", 1)[1])
            for flag, _, value in (a.partition("=") for a in container["args"])
            if flag in listening}
        assert ports == found, name_of(owner)
        assert "--allow-insecure-remote" in container["args"]


@every_overlay
def test_arguments_can_be_filled_in(overlay):
    for _, container in containers(overlay):
        for text in container["args"]:
            assert "$(" not in expanded(overlay, container, text)


@every_overlay
def test_every_variable_is_used(overlay):
    for owner, container in containers(overlay):
        used = set(re.findall(r"\$\((\w+)\)", " ".join(container["args"])))
        assert variables_of(overlay, container).keys() == used, name_of(owner)


@pytest.mark.parametrize("program", ["attic-store", "attic-worker"])
@every_overlay
def test_programs_know_their_flags(overlay, program):
    used = {
        match.group() for _, container in containers(overlay)
        if container["command"] == [program]
        for text in container["args"] if (match := re.match(r"--[\w-]+", text))}
    assert len(used) > 5
    answer = subprocess.run([BIN / program, "--help"], check=True, capture_output=True, text=True)
    known = set(re.findall(r"--[\w-]+", answer.stdout))
    if program == "attic-store" and "--cluster" not in known:
        pytest.skip(f"not run: {BIN / program} knows no --cluster yet")
    assert used <= known, sorted(used - known)


@every_overlay
def test_identity(overlay):
    store = store_of(overlay)
    container = pod_of(store)["containers"][0]
    headless = named(overlay, "Service", store["spec"]["serviceName"])
    assert headless["spec"]["clusterIP"] == "None"
    assert headless["spec"]["publishNotReadyAddresses"] is True
    assert argument(container, "--node-id") == "$(POD_NAME)"
    name = headless["metadata"]["name"]
    port = headless["spec"]["ports"][0]["port"]
    assert argument(container, "--advertise") == f"$(POD_NAME).{name}.$(NAMESPACE).svc:{port}"
    fields = {e["name"]: e["valueFrom"].get("fieldRef", {}).get("fieldPath")
              for e in container["env"] if "valueFrom" in e}
    assert fields["POD_NAME"] == "metadata.name"
    assert fields["NAMESPACE"] == "metadata.namespace"
    assert fields["ZONE"] == "metadata.labels['topology.kubernetes.io/zone']"
    # The zone may be empty, and "--zone=" would take the next argument for it.
    assert container["args"][container["args"].index("--zone") + 1] == "$(ZONE)"


@every_overlay
def test_a_pod_is_given_the_time_its_program_takes_to_end(overlay):
    for owner, container in containers(overlay):
        if not container["command"][0].startswith("attic-"):
            continue
        seconds = int(argument(container, "--drain-seconds"))
        seconds += container.get("lifecycle", {}).get("preStop", {}).get("sleep", {}).get(
            "seconds", 0)
        assert pod_of(owner)["terminationGracePeriodSeconds"] >= seconds + 15, name_of(owner)


@every_overlay
def test_memory_limit_of_stores_leaves_room(overlay):
    container = pod_of(store_of(overlay))["containers"][0]
    limit = bytes_of(expanded(overlay, container, argument(container, "--memory-limit")))
    pod = bytes_of(container["resources"]["limits"]["memory"])
    assert pod // 2 <= limit <= pod * 3 // 4


@every_overlay
def test_stores_start_together_and_change_one_at_a_time(overlay):
    spec = store_of(overlay)["spec"]
    assert spec["podManagementPolicy"] == "Parallel"
    assert spec["updateStrategy"] == {"type": "RollingUpdate"}
    container = pod_of(store_of(overlay))["containers"][0]
    replicas = int(expanded(overlay, container, argument(container, "--cluster-replicas")))
    assert replicas <= spec["replicas"]
    for name in ("attic-store", "attic-worker"):
        assert named(overlay, "PodDisruptionBudget", name)["spec"]["maxUnavailable"] == 1


@every_overlay
def test_data_is_on_the_claimed_volume(overlay):
    store = store_of(overlay)
    container = pod_of(store)["containers"][0]
    claims = {claim["metadata"]["name"] for claim in store["spec"]["volumeClaimTemplates"]}
    writable = {m["mountPath"] for m in container["volumeMounts"] if m["name"] in claims}
    folder = argument(container, "--data-dir")
    # A folder below the mount: file systems have files of their own at the top.
    assert any(folder.startswith(path + "/") for path in writable)


@every_overlay
def test_mounts_have_volumes(overlay):
    for owner, container in containers(overlay):
        volumes = {volume["name"] for volume in pod_of(owner).get("volumes", [])}
        volumes |= {c["metadata"]["name"] for c in owner["spec"].get("volumeClaimTemplates", [])}
        mounts = {mount["name"] for mount in container.get("volumeMounts", [])}
        assert mounts == volumes, name_of(owner)


def test_production_stores_are_pinned_and_apart():
    pod = pod_of(store_of("production"))
    resources = pod["containers"][0]["resources"]
    assert resources["requests"] == resources["limits"], "quality of service Guaranteed"
    assert re.fullmatch(r"\d+", resources["limits"]["cpu"]), "whole processors"
    rules = pod["affinity"]["podAntiAffinity"]
    assert list(rules) == ["requiredDuringSchedulingIgnoredDuringExecution"]
    terms = rules["requiredDuringSchedulingIgnoredDuringExecution"]
    apart = {term["topologyKey"] for term in terms}
    assert apart == {"kubernetes.io/hostname"}
    zones = [c for c in pod["topologySpreadConstraints"]
             if c["topologyKey"] == "topology.kubernetes.io/zone"]
    assert [(z["whenUnsatisfiable"], z["maxSkew"], z["minDomains"]) for z in zones] == [
        ("DoNotSchedule", 1, 3)]
    assert store_of("production")["spec"]["replicas"] % 3 == 0


def test_production_workers_have_a_gpu():
    container = pod_of(named("production", "Deployment", "attic-worker"))["containers"][0]
    assert container["resources"]["limits"]["nvidia.com/gpu"] == 1
    assert container["resources"]["requests"] == container["resources"]["limits"]
    assert expanded("production", container, argument(container, "--backend")) == "cuda"
    assert "attic-cuda" in container["image"]


def test_the_certificate_is_what_stores_use():
    secret = of_kind("production", "Certificate")[0]["spec"]["secretName"]
    pod = pod_of(store_of("production"))
    container = pod["containers"][0]
    volumes = [v for v in pod["volumes"] if v.get("secret", {}).get("secretName") == secret]
    mounts = [m for m in container["volumeMounts"] if m["name"] == volumes[0]["name"]]
    for flag, file in (("ca", "ca.crt"), ("cert", "tls.crt"), ("key", "tls.key")):
        assert argument(container, f"--etcd-{flag}") == f"{mounts[0]['mountPath']}/{file}"
    assert not [c for c in pod_of(store_of("kind"))["containers"][0]["args"] if "etcd-ca" in c]


@every_overlay
def test_images_are_named_in_full(overlay):
    for _, container in containers(overlay):
        assert "/" in container["image"] and ":" in container["image"]
        # Of a tag such as latest Kubernetes asks the registry each time, and kind has none.
        if container["command"][0].startswith("attic-"):
            assert container["imagePullPolicy"] == "IfNotPresent"


@every_overlay
def test_selectors_of_owners_and_spreads(overlay):
    for owner in pod_owners(overlay):
        labels = owner["spec"]["template"]["metadata"]["labels"]
        pod = pod_of(owner)
        selectors = [owner["spec"]["selector"]]
        selectors += [c["labelSelector"] for c in pod.get("topologySpreadConstraints", [])]
        rules = pod.get("affinity", {}).get("podAntiAffinity", {})
        for term in rules.get("requiredDuringSchedulingIgnoredDuringExecution", []):
            selectors.append(term["labelSelector"])
        for term in rules.get("preferredDuringSchedulingIgnoredDuringExecution", []):
            selectors.append(term["podAffinityTerm"]["labelSelector"])
        for selector in selectors:
            assert selector["matchLabels"].items() <= labels.items(), name_of(owner)


def test_stores_and_workers_are_spread():
    for overlay in ("kind", "production"):
        for item in render(overlay):
            if item["metadata"]["name"] in ("attic-store", "attic-worker") and (
                    item["kind"] in ("StatefulSet", "Deployment")):
                keys = {c["topologyKey"] for c in pod_of(item)["topologySpreadConstraints"]}
                assert "topology.kubernetes.io/zone" in keys
