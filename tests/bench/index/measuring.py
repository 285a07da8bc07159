"""Runs the programs of the benchmark, each on those heads of a data set that lack its results."""

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
from baselines.vector_set import open_set, spread_groups
from datasets.common import cache_folder, is_complete
from plan import first_heads
from results import NEEDLE_FILES, read_set

HERE = Path(__file__).resolve().parent
ONE_THREAD = {"OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1"}
PROGRAMS = ("frontier_bench", "append_bench", "needle_bench", "attic")
PROGRAMS_FOLDER = "programs"  # beside the folders of the sets
NEEDLES = (1048576, 128, 256)  # tokens, dimensions, needles
QUICK_NEEDLES = (131072, 128, 64)
NEEDLE_REST = (0.5, 8, 1)  # share of training queries, distractors, seed


def say(text):
    print(text, file=sys.stderr, flush=True)


def run(command, out=None):
    """Runs a program; its output goes to `out`, which appears when all of it is there."""
    command = [str(part) for part in command]
    environment = {**os.environ, **ONE_THREAD}
    if out is None:
        subprocess.run(command, check=True, cwd=HERE, env=environment, stdout=sys.stderr)
        return
    part = out.with_name(out.name + ".part")
    with part.open("w") as file:
        subprocess.run(command, check=True, cwd=HERE, env=environment, stdout=file)
    part.replace(out)


def run_measure(module, vector_set, head, out, *options):
    """One of the Python programs, which write their JSON themselves."""
    part = out.with_name(out.name + ".part")
    run([sys.executable, "-m", module, vector_set.folder, "--heads", head, "--out", part, *options])
    part.replace(out)


def make_set(name):
    """Makes a set that is missing, or whose files were links to a folder that is gone."""
    folder = cache_folder() / name
    if is_complete(name) and not (folder / "keys_0.npy").exists():
        (folder / "set.json").unlink()
    if not is_complete(name):
        say(f"{name}: is made")
        run([sys.executable, "-m", "datasets.make_all", "--only", name])
    return open_set(folder)


def is_current(path, program):
    """Whether there is a result that is newer than its program."""
    return path.exists() and path.stat().st_mtime > program.stat().st_mtime


def measure_attic(plan, vector_set, folder):
    program = folder.parent / PROGRAMS_FOLDER / "frontier_bench"
    for head in plan.heads:
        out = folder / f"attic_{head}.jsonl"
        if not is_current(out, program):
            say(f"{plan.name}: Attic, head {head}")
            run([program, vector_set.folder, head, vector_set.group,
                 repr(vector_set.logit_scale), plan.questions], out)


def measure_appends(plan, vector_set, folder):
    program = folder.parent / PROGRAMS_FOLDER / "append_bench"
    for head in plan.append_heads:
        out = folder / f"append_{head}.json"
        if not is_current(out, program):
            say(f"{plan.name}: searches beside appends, head {head}")
            run([program, vector_set.folder, head, vector_set.group,
                 repr(vector_set.logit_scale)], out)


def measure_needles(root, quick):
    """Both files of needles, as a store answers and without exact scans."""
    program = root / PROGRAMS_FOLDER / "needle_bench"
    for name, way in zip(NEEDLE_FILES, ([], ["walk"])):
        if not is_current(root / name, program):
            say(f"needles: {name}")
            run([program, *(QUICK_NEEDLES if quick else NEEDLES), *NEEDLE_REST, *way], root / name)


def measure_search(plan, vector_set, folder):
    """Attic's search and graph, which learn from the training queries, on the peers' questions."""
    program = folder.parent / PROGRAMS_FOLDER / "attic"
    for head in plan.search_heads:
        out = folder / f"search_{head}.json"
        if is_current(out, program):
            continue
        say(f"{plan.name}: Attic's search, head {head}")
        vectors = vector_set.head(head)
        questions = spread_groups(vectors.questions, vector_set.group, plan.peer_questions)
        questions = questions.reshape(-1, vector_set.head_dim)
        queries = folder / "queries.npy"
        np.save(queries, np.concatenate([vectors.training, questions]))
        arrays = [f"--{name}={vector_set.folder / f'{name}_{head}.npy'}"
                  for name in ("keys", "values")]
        run([program, "--json", "bench", "vectors", f"--queries={queries}", *arrays,
             f"--train={len(vectors.training)}", f"--test={len(questions)}",
             f"--logit-scale={vector_set.logit_scale!r}"], out)
        queries.unlink()


def measure_others(plan, vector_set, folder):
    """Baselines and peers, each on those of its heads that have no results."""
    results = read_set(folder)
    for head in plan.baseline_heads:
        if head not in results.baselines:
            say(f"{plan.name}: baselines, head {head}")
            run_measure("baselines.measure", vector_set, head, folder / f"baselines_{head}.json",
                        "--questions", plan.baseline_questions)
    for head in plan.peer_heads:
        if head not in results.peers:
            say(f"{plan.name}: peers, head {head}")
            run_measure("peers.measure", vector_set, head, folder / f"peers_{head}.json",
                        "--questions", plan.peer_questions, "--passes", plan.peer_passes,
                        "--threads", "1")


def measure_attention(plan, vector_set, folder):
    """PyTorch alone, where no peers are measured."""
    results = read_set(folder)
    for head in plan.attention_heads:
        if head not in results.attention:
            say(f"{plan.name}: PyTorch, head {head}")
            run_measure("peers.measure", vector_set, head, folder / f"peers_attention_{head}.json",
                        "--attention-only", "--passes", "3", "--threads", "1")


def measure_set(plan, heads_max, root):
    vector_set = make_set(plan.name)
    plan = first_heads(plan, heads_max, vector_set.heads)
    folder = root / plan.name
    folder.mkdir(parents=True, exist_ok=True)
    measure_attic(plan, vector_set, folder)
    measure_appends(plan, vector_set, folder)
    measure_search(plan, vector_set, folder)
    measure_attention(plan, vector_set, folder)
    measure_others(plan, vector_set, folder)
