"""The results of one data set, as the programs of the benchmark left them in its folder.

    attic_H.jsonl    frontier_bench, a line a policy
    search_H.json    attic bench vectors
    append_H.json    append_bench
    baselines*.json  baselines.measure; those in hindsight are kept apart
    peers*.json      peers.measure

Every file is of one head or of several; one that is not complete has another name. What
needle_bench found in a head of its own lies beside the folders, in NEEDLE_FILES.
"""

import json
from dataclasses import dataclass, field
from pathlib import Path

NEEDLE_FILES = ("needles.json", "needles_walk.json")  # as a store does, and walking always


@dataclass
class SetResults:
    name: str
    attic: dict[int, list[dict]] = field(default_factory=dict)      # lines of a head
    search: dict[int, list[dict]] = field(default_factory=dict)     # indexes of a head
    appends: dict[int, dict] = field(default_factory=dict)          # report of a head
    baselines: dict[int, list[dict]] = field(default_factory=dict)  # rows of a head
    hindsight: dict[int, list[dict]] = field(default_factory=dict)  # rows of a head
    peers: dict[int, list[dict]] = field(default_factory=dict)      # rows of a head
    attention: dict[int, list[dict]] = field(default_factory=dict)  # PyTorch on a head alone
    question_groups: dict[str, int] = field(default_factory=dict)

    @property
    def tokens(self):
        return next(iter(self.attic.values()))[0]["tokens"]

    def lines(self, head, policy):
        return [line for line in self.attic[head] if line["policy"] == policy]


def head_of(path):
    return int(path.stem.rsplit("_", 1)[1])


def add_rows(to, report, rows):
    for row in rows:
        to.setdefault(row["head"], []).append(row)
    return report["question_groups"]


def read_set(folder):
    """The SetResults of a folder; parts that were not measured are empty."""
    folder = Path(folder)
    results = SetResults(folder.name)
    for path in sorted(folder.glob("attic_*.jsonl"), key=head_of):
        results.attic[head_of(path)] = [json.loads(line) for line in path.open()]
    for path in sorted(folder.glob("search_*.json"), key=head_of):
        results.search[head_of(path)] = json.loads(path.read_text())["indexes"]
    for path in sorted(folder.glob("append_*.json"), key=head_of):
        results.appends[head_of(path)] = json.loads(path.read_text())
    for path in sorted(folder.glob("baselines*.json")):
        report = json.loads(path.read_text())
        late = report.get("hindsight", False)
        groups = add_rows(results.hindsight if late else results.baselines, report, report["rows"])
        results.question_groups["hindsight" if late else "baselines"] = groups
    for path in sorted(folder.glob("peers*.json")):
        report = json.loads(path.read_text())
        results.question_groups["peers"] = add_rows(results.peers, report, report["rows"])
        # One kv head means the first of the file.
        first = report["rows"][0]["head"] if report["rows"] else report["heads"][0]
        results.attention[first] = [row for row in report["attention"] if row["kv_heads"] == 1]
    return results


def read_all(root):
    """All sets below a folder that Attic was measured on, small ones first."""
    folders = [path for path in Path(root).iterdir() if any(path.glob("attic_*.jsonl"))]
    return sorted(map(read_set, folders), key=lambda results: (results.tokens, results.name))


def read_needles(root):
    """The reports of needle_bench that are there."""
    paths = [Path(root) / name for name in NEEDLE_FILES]
    return [json.loads(path.read_text()) for path in paths if path.exists()]
