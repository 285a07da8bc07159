"""Alerts and dashboard use metrics that the store exports, and alerts fire when they should."""

import json
import re
import subprocess

import pytest
import yaml
from manifests import KUSTOMIZE, ROOT, named, of_kind, tool

# Metrics of Prometheus itself.
BUILT_IN = {"up"}
# Labels that Prometheus adds to what it scrapes.
ADDED_LABELS = {"namespace", "pod", "job", "instance", "le"}


def exported():
    """{name: (type, {label: set of its values, empty where they are not listed})}"""
    metrics = {}
    for line in (ROOT / "tests/deploy/metrics.txt").read_text().splitlines():
        if line.startswith("#"):
            continue
        name, kind, labels = line.split()
        pairs = [part.partition("=") for part in labels.split(",") if part != "-"]
        values = {key: set(filter(None, value.split("|"))) for key, _, value in pairs}
        metrics[name] = (kind, values)
    return metrics


def rules():
    groups = named("production", "PrometheusRule", "attic")["spec"]["groups"]
    return [rule for group in groups for rule in group["rules"]]


def dashboard():
    return json.loads(named("production", "ConfigMap", "attic-dashboard")["data"]["attic.json"])


def dashboard_queries():
    return [target["expr"] for panel in dashboard()["panels"]
            for target in panel.get("targets", [])]


def all_queries():
    return [rule["expr"] for rule in rules()] + dashboard_queries()


def alert_cases():
    """{alert: {"fires": {series: values}, "silent": {series: values}}}"""
    return yaml.safe_load((ROOT / "tests/deploy/alerts.yaml").read_text())


def metrics_in(query):
    """(name, {label: pattern}) of every metric in a query."""
    for match in re.finditer(r"\b(attic_\w+|up)\b(\{[^}]*\})?", query):
        matchers = re.findall(r'(\w+)(?:=~|!~|!=|=)"([^"]*)"', match.group(2) or "")
        yield match.group(1), dict(matchers)


def family_of(name, metrics):
    """The metric that a series belongs to: of histograms the name without its ending."""
    base = re.sub(r"_(bucket|sum|count)$", "", name)
    return base if metrics.get(base, ("",))[0] == "histogram" else name


def test_queries_use_exported_metrics_and_labels():
    metrics, errors = exported(), []
    series = [s for case in alert_cases().values() for s in (*case["fires"], *case["silent"])]
    for query in all_queries() + series:
        for name, matchers in metrics_in(query):
            if name in BUILT_IN:
                continue
            family = family_of(name, metrics)
            if family not in metrics:
                errors.append(f"{name} is not exported")
                continue
            if (metrics[family][0] == "histogram") == (family == name):
                errors.append(f"{name}: one series of a histogram, or no histogram")
            for label, pattern in matchers.items():
                values = metrics[family][1].get(label, None if label not in ADDED_LABELS else set())
                if values is None:
                    errors.append(f"{name} has no label {label}")
                elif values and not any(re.fullmatch(pattern, value) for value in values):
                    errors.append(f"{name}: {label} is never {pattern}")
    assert not errors, "\n".join(sorted(set(errors)))


def test_queries_group_by_labels_there_are():
    metrics = exported()
    for query in all_queries():
        labels = set(ADDED_LABELS)
        for name, _ in metrics_in(query):
            labels |= metrics.get(family_of(name, metrics), ("", {}))[1].keys()
        for group in re.findall(r"\bby \(([^)]*)\)", query):
            assert set(re.split(r", *", group)) <= labels, query


def test_counters_are_asked_for_their_rate():
    metrics = exported()
    for query in all_queries():
        for match in re.finditer(r"(\w+\()?(attic_\w+)", query):
            if metrics.get(match.group(2), ("",))[0] == "counter":
                assert match.group(1) in ("rate(", "increase("), query


@pytest.mark.parametrize("family", ["attic_store_(?!cluster_)", "attic_store_cluster_"])
def test_the_list_is_what_the_source_exports(family):
    source = "\n".join(
        path.read_text() for path in (ROOT / "server").rglob("*") if path.suffix in (".cc", ".h"))
    in_source = set(re.findall(rf'"({family}\w+)"', source))
    if not in_source:
        pytest.skip(f"not run: the source has no metric {family} yet")
    listed = {name for name in exported() if re.match(family, name)}
    assert listed == in_source


def test_rules_are_well_formed():
    readme = (ROOT / "deploy/README.md").read_text()
    headings = re.findall(r"^#+ (.+)$", readme, re.MULTILINE)
    anchors = {re.sub(r"[^\w -]", "", h).strip().lower().replace(" ", "-") for h in headings}
    for rule in rules():
        assert set(rule) <= {"alert", "expr", "for", "labels", "annotations"}
        assert re.fullmatch(r"Attic\w+", rule["alert"])
        assert rule["labels"]["severity"] in ("warning", "critical")
        assert set(rule["annotations"]) == {"summary", "description", "runbook"}
        assert rule["annotations"]["runbook"].split("#")[1] in anchors, rule["alert"]
    assert len({rule["alert"] for rule in rules()}) == len(rules())
    assert set(of_kind("production", "PrometheusRule")[0]["spec"]) == {"groups"}


def test_dashboard_is_well_formed():
    board = dashboard()
    identifiers = [panel["id"] for panel in board["panels"]]
    assert len(identifiers) == len(set(identifiers))
    cells = set()
    for panel in board["panels"]:
        box = panel["gridPos"]
        assert 0 <= box["x"] and box["x"] + box["w"] <= 24
        own = {(x, y) for x in range(box["x"], box["x"] + box["w"])
               for y in range(box["y"], box["y"] + box["h"])}
        assert not own & cells, f"{panel['title']} lies on another panel"
        cells |= own
        assert panel["type"] == "row" or panel["targets"]
    names = {variable["name"] for variable in board["templating"]["list"]}
    used = set(re.findall(r"\$\{?(\w+)", json.dumps(board))) - {"__rate_interval"}
    assert used == names
    labels = named("production", "ConfigMap", "attic-dashboard")["metadata"]["labels"]
    assert labels["grafana_dashboard"] == "1"


def promtool(tmp_path, command, content):
    path = tmp_path / "input.yaml"
    path.write_text(yaml.safe_dump(content))
    answer = subprocess.run(
        [tool("promtool"), *command, path], capture_output=True, text=True, cwd=tmp_path)
    assert answer.returncode == 0, answer.stdout + answer.stderr


def test_promtool_reads_the_queries(tmp_path):
    queries = [query.replace("$__rate_interval", "1m") for query in all_queries()]
    assert len(queries) > 40
    recorded = [{"record": f"query:{i}", "expr": query} for i, query in enumerate(queries)]
    promtool(tmp_path, ["check", "rules"], {"groups": [{"name": "all", "rules": recorded}]})


def test_alerts_fire_when_they_should_and_not_before(tmp_path):
    cases = alert_cases()
    assert cases.keys() == {rule["alert"] for rule in rules()}
    (tmp_path / "rules.yaml").write_text(
        yaml.safe_dump(named("production", "PrometheusRule", "attic")["spec"]))
    tests = []
    for alert, case in cases.items():
        for series, count in ((case["fires"], 1), (case["silent"], 0)):
            tests.append({
                "interval": "1m",
                "name": alert,
                "input_series": [{"series": s, "values": v} for s, v in series.items()],
                "promql_expr_test": [{
                    "expr": f"""count(ALERTS{{alertname="{alert}",alertstate="firing"}})
                                or vector(0)""",
                    "eval_time": "1h",
                    "exp_samples": [{"labels": "{}", "value": count}],
                }],
            })
    promtool(tmp_path, ["test", "rules"], {"rule_files": ["rules.yaml"], "tests": tests})


def test_every_file_of_the_component_is_used():
    folder = KUSTOMIZE / "components/monitoring"
    listed = yaml.safe_load((folder / "kustomization.yaml").read_text())
    used = set(listed["resources"]) | {"dashboard.json", "kustomization.yaml"}
    assert used == {path.name for path in folder.iterdir()}
