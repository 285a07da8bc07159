"""Services and network policies: what they select, and that nothing passes but what is needed."""

from manifests import (
    every_overlay, name_of, named, of_kind, pod_labels, pod_of, pod_owners, selected_owners,
    selects)

DNS = {
    "namespaceSelector": {"matchLabels": {"kubernetes.io/metadata.name": "kube-system"}},
    "podSelector": {"matchLabels": {"k8s-app": "kube-dns"}},
}


def ports_of(owner):
    """{name: number} of an owner's containers."""
    return {port["name"]: port["containerPort"]
            for container in pod_of(owner)["containers"] for port in container["ports"]}


def component(owner):
    labels = pod_labels(owner)
    return labels.get("app.kubernetes.io/component", labels["app.kubernetes.io/name"])


def peer_names(overlay, peer):
    """What a peer of a policy stands for: components of this overlay, or a word for others."""
    if peer == DNS:
        return ["dns"]
    if "ipBlock" in peer:
        assert set(peer["ipBlock"]) == {"cidr"} and peer["ipBlock"]["cidr"] != "0.0.0.0/0"
        return ["etcd"]
    if "namespaceSelector" in peer:
        assert peer["podSelector"]["matchLabels"], "all pods of a namespace"
        return [peer["podSelector"]["matchLabels"]["app.kubernetes.io/name"]]
    if peer["podSelector"] == {"matchLabels": {"attic-client": "true"}}:
        return ["client"]
    found = selected_owners(overlay, peer["podSelector"])
    assert found, peer
    return [component(owner) for owner in found]


def allowed(overlay, direction):
    """{(pod's component, peer, port)} that the policies let through, ports as numbers."""
    passes = set()
    for policy in of_kind(overlay, "NetworkPolicy"):
        spec = policy["spec"]
        owners = selected_owners(overlay, spec["podSelector"])
        assert owners, f"{name_of(policy)} selects nothing"
        for rule in spec.get(direction, []):
            peers = rule["from" if direction == "ingress" else "to"]
            names = [name for peer in peers for name in peer_names(overlay, peer)]
            assert names and rule["ports"], name_of(policy)
            passes |= {
                (component(owner), name, number)
                for owner in owners for name in names for port in rule["ports"]
                for number in [port_number(overlay, owner, name, port["port"], direction)]}
    return passes


def port_number(overlay, owner, peer, port, direction):
    """A port by its number. Names are those of the pod that listens."""
    if isinstance(port, int):
        return port
    listening = owner
    if direction == "egress":
        listening = next(o for o in pod_owners(overlay) if component(o) == peer)
    return ports_of(listening)[port]


EGRESS = {
    ("store", "store", 7400), ("store", "etcd", 2379), ("store", "dns", 53),
    ("worker", "store", 7400), ("worker", "dns", 53)}
INGRESS = {
    ("store", "store", 7400), ("store", "worker", 7400), ("store", "client", 7400),
    ("worker", "client", 7500)}


def test_what_passes_in_kind():
    assert allowed("kind", "egress") == EGRESS
    assert allowed("kind", "ingress") == INGRESS | {("etcd", "store", 2379)}


def test_what_passes_in_production():
    assert allowed("production", "egress") == EGRESS
    assert allowed("production", "ingress") == INGRESS | {("store", "prometheus", 7402)}


@every_overlay
def test_ports_of_policies_are_container_ports(overlay):
    for owner_name, _, port in allowed(overlay, "ingress"):
        owners = [o for o in pod_owners(overlay) if component(o) == owner_name]
        assert port in ports_of(owners[0]).values()


@every_overlay
def test_everything_else_is_denied(overlay):
    """Every pod is isolated in both directions, whatever else selects it."""
    deny = named(overlay, "NetworkPolicy", "attic-deny")["spec"]
    assert deny == {
        "podSelector": {"matchLabels": {"app.kubernetes.io/name": "attic"}},
        "policyTypes": ["Ingress", "Egress"],
    }
    for owner in pod_owners(overlay):
        closed = set()
        for policy in of_kind(overlay, "NetworkPolicy"):
            if selects(policy["spec"]["podSelector"], pod_labels(owner)):
                closed |= set(policy["spec"]["policyTypes"])
        assert closed == {"Ingress", "Egress"}, name_of(owner)


@every_overlay
def test_policies_say_the_directions_of_their_rules(overlay):
    for policy in of_kind(overlay, "NetworkPolicy"):
        rules = {key.capitalize() for key in ("ingress", "egress") if key in policy["spec"]}
        assert rules <= set(policy["spec"]["policyTypes"]), name_of(policy)


@every_overlay
def test_etcd_is_reached_by_the_port_in_the_configuration(overlay):
    data = [m["data"] for m in of_kind(overlay, "ConfigMap") if "ETCD" in m["data"]]
    ports = {int(address.rsplit(":", 1)[1]) for address in data[0]["ETCD"].split(",")}
    assert ports == {port for _, peer, port in allowed(overlay, "egress") if peer == "etcd"}


@every_overlay
def test_services_select_one_kind_of_pod_and_its_ports(overlay):
    for service in of_kind(overlay, "Service"):
        owners = selected_owners(overlay, {"matchLabels": service["spec"]["selector"]})
        assert len(owners) == 1, name_of(service)
        for port in service["spec"]["ports"]:
            assert ports_of(owners[0])[port["targetPort"]] == port["port"], name_of(service)


@every_overlay
def test_clients_reach_ready_stores_through_one_service(overlay):
    spec = named(overlay, "Service", "attic")["spec"]
    assert "publishNotReadyAddresses" not in spec and spec.get("clusterIP") != "None"
    worker = pod_of(named(overlay, "Deployment", "attic-worker"))["containers"][0]
    assert f"--store=attic.$(NAMESPACE).svc:{spec['ports'][0]['port']}" in worker["args"]


@every_overlay
def test_budgets_select_one_kind_of_pod(overlay):
    for budget in of_kind(overlay, "PodDisruptionBudget"):
        owners = selected_owners(overlay, budget["spec"]["selector"])
        assert [o["metadata"]["name"] for o in owners] == [budget["metadata"]["name"]]


def test_prometheus_finds_the_stores():
    monitor = named("production", "ServiceMonitor", "attic-store")["spec"]
    services = [s for s in of_kind("production", "Service")
                if selects(monitor["selector"], s["metadata"].get("labels", {}))]
    assert [s["metadata"]["name"] for s in services] == ["attic-store"], "each store once"
    assert set(monitor) == {"jobLabel", "selector", "endpoints"}
    for endpoint in monitor["endpoints"]:
        assert set(endpoint) == {"port", "interval", "scrapeTimeout"}
        assert endpoint["port"] in {port["name"] for port in services[0]["spec"]["ports"]}
    assert services[0]["metadata"]["labels"][monitor["jobLabel"]] == "attic"
