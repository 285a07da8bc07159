"""Plots of the report as SVG: told apart by marker and line style, so that grey will do."""

from pathlib import Path

import comparison
import matplotlib
import service

matplotlib.use("Agg")
matplotlib.rcParams.update({"svg.fonttype": "none", "svg.hashsalt": "attic", "font.size": 9,
                            "axes.spines.top": False, "axes.spines.right": False})
from matplotlib import pyplot  # noqa: E402  # after the choice of the backend

STYLES = [("#c44e52", "s", "--"), ("#4c72b0", "^", "-."), ("#55a868", "D", ":"),
          ("#8172b3", "v", "--"), ("#937860", "P", "-."), ("#64a0a8", "X", ":"),
          ("#da8bc3", "<", "--"), ("#8c8c8c", ">", "-."), ("#ccb974", "h", ":"),
          ("#64b5cd", "*", "--")]
MISSED_MIN, ERROR_MIN = 1e-3, 1e-5  # less is drawn here
ATTIC_STYLE = {"color": "black", "marker": "o", "linestyle": "-", "linewidth": 2.2}


def styles(names):
    """A style for each name; names that begin with Attic are black."""
    found, ours = {}, iter(("-", "--", ":"))
    theirs = iter(STYLES * 2)
    for name in names:
        if name.startswith(comparison.ATTIC):
            found[name] = {**ATTIC_STYLE, "linestyle": next(ours)}
        else:
            color, marker, line = next(theirs)
            found[name] = {"color": color, "marker": marker, "linestyle": line, "linewidth": 1.2}
    return found


def draw(path, curves, title, x_label, y_label, axes_of):
    """curves: name: [(x, y), ...]. axes_of: called with the axes to set scales."""
    figure, axes = pyplot.subplots(figsize=(7, 4.6), layout="constrained")
    style = styles(curves)
    for name, points in curves.items():
        points = [(x, max(y, ERROR_MIN)) for x, y in points]
        order = 3 if name.startswith(comparison.ATTIC) else 2
        axes.plot(*zip(*points), label=name, markersize=4.5, zorder=order, **style[name])
    axes.set(title=title, xlabel=x_label, ylabel=y_label)
    axes_of(axes)
    axes.grid(True, which="major", color="#dddddd", linewidth=0.6)
    axes.legend(fontsize=7, frameon=False)
    figure.savefig(path, metadata={"Date": None})
    pyplot.close(figure)


def error_curves(results):
    """Medians over the heads that both were measured on; of each method at its budgets."""
    heads = comparison.both_heads(results, results.baselines) or sorted(results.attic)
    curves = {comparison.ATTIC: comparison.curve(
        [comparison.attic_points(results.attic[head]) for head in heads])}
    methods = dict.fromkeys(row["method"] for head in heads
                            for row in results.baselines.get(head, ()))
    for method in methods:
        at_budgets = {}
        for head in heads:
            for row in results.baselines.get(head, ()):
                if row["method"] == method and row["budget"] and row["error"]:
                    at_budgets.setdefault(row["budget"], []).append(row)
        full = max(map(len, at_budgets.values()), default=0)  # a median of fewer heads misleads
        points = [[comparison.baseline_points(rows)[head] for rows in at_budgets.values()
                   if len(rows) == full] for head in range(full)]
        if points:
            curves[method] = comparison.curve(points)
    return curves


def log_percent(axes):
    axes.set(xscale="log", yscale="log")
    ticks = (0.005, 0.01, 0.02, 0.05, 0.1, 0.25)
    axes.set_xticks(ticks, [f"{100 * tick:g}%" for tick in ticks])
    axes.minorticks_off()


def search_curves(results):
    """Of the first head measured: (share of neighbours missed, ms) of each library's best settings.

    A setting is left out where another one is faster and finds as many.
    """
    curves = {}
    for name, heads in sorted(service.search_points(results).items()):
        kept, least = [], float("inf")
        for missed, ms in sorted((max(1 - recall, MISSED_MIN), ms)
                                 for recall, ms in next(iter(heads.values()))):
            if ms < least and missed <= 0.5:
                least = ms
                kept.append((missed, ms))
        if kept:
            curves[name] = kept
    return curves


def recall_axes(axes):
    axes.set(xscale="log", yscale="log", xlim=(0.5, MISSED_MIN / 1.2))
    ticks = (0.5, 0.2, 0.1, 0.05, 0.02, 0.01, 0.005, 0.002, MISSED_MIN)
    axes.set_xticks(ticks, [f"{1 - tick:g}" for tick in ticks[:-1]] + ["all"])
    axes.minorticks_off()


def latency_curves(all_results):
    """Milliseconds over tokens for the families of sets that have several sizes."""
    families = {}
    for results in all_results:
        families.setdefault(results.name.rsplit("-", 1)[0], []).append(results)
    curves = {}
    for family, members in families.items():
        for key in ("exact", "default", "max_error 0.2"):
            points = [(results.tokens, service.milliseconds(results)[key]) for results in members]
            points = [point for point in points if point[1] is not None]
            if len(points) > 1:
                label = "max_error 0.05 (default)" if key == "default" else key
                curves[f"{family}, {label}"] = points
    return curves


def log_axes(axes):
    axes.set(xscale="log", yscale="log")


def write_plots(all_results, folder):
    """One plot of errors and one of recall for each set, one of latency, where there is data."""
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    for old in folder.glob("*.svg"):
        old.unlink()
    for results in all_results:
        draw(folder / f"error_{results.name}.svg", error_curves(results), results.name,
             "bytes read, of all keys and values", "relative error of the output, median",
             log_percent)
        if curves := search_curves(results):
            draw(folder / f"recall_{results.name}.svg", curves, results.name, "recall@100",
                 "milliseconds, one query on one thread", recall_axes)
    if curves := latency_curves(all_results):
        draw(folder / "latency.svg", curves, "attention of one group of query heads", "tokens",
             "milliseconds, one thread", log_axes)
