"""What the benchmark measures on each data set."""

from dataclasses import dataclass, replace


@dataclass(frozen=True)
class Plan:
    """One data set. Attic is measured on all of its heads where `heads` is None.

    Questions are groups of query heads. Baselines and peers take minutes a head, and on a million
    keys many minutes, so that they get fewer heads and questions. Where heads are diffuse, Attic
    gets fewer questions on a million keys, too.
    """

    name: str
    heads: tuple[int, ...] | None = None
    questions: int = 128
    baseline_heads: tuple[int, ...] = ()
    baseline_questions: int = 64
    peer_heads: tuple[int, ...] = ()
    peer_questions: int = 32
    peer_passes: int = 5
    attention_heads: tuple[int, ...] = ()  # of PyTorch alone, where there are no peers
    search_heads: tuple[int, ...] = ()  # of `attic bench vectors`
    append_heads: tuple[int, ...] = ()  # of append_bench
    # What its heads are called in the smaller set of the same name; empty: the same.
    smaller_heads: tuple[int, ...] = ()


PLANS = {plan.name: plan for plan in (
    Plan("encoder-114688", baseline_heads=(0, 7, 13, 20), peer_heads=(0, 7), search_heads=(0, 7),
         append_heads=(0, 7)),
    Plan("rotary-131072", baseline_heads=tuple(range(8)), peer_heads=(0, 5), search_heads=(0, 5),
         append_heads=(0, 5)),
    Plan("rotary-scaled-131072", baseline_heads=tuple(range(8)), peer_heads=(0,),
         search_heads=(0,)),
    Plan("synthetic-middle-131072", baseline_heads=(0,), peer_heads=(0,), search_heads=(0,),
         append_heads=(0,)),
    Plan("synthetic-diffuse-131072", baseline_heads=(0,)),
    Plan("synthetic-sharp-131072", baseline_heads=(0,)),
    Plan("recall-1048576", baseline_heads=(0,), baseline_questions=16, attention_heads=(0,),
         append_heads=(0,)),
    Plan("encoder-1048576", questions=32, baseline_heads=(1,), baseline_questions=16,
         attention_heads=(0,),
         append_heads=(0,), smaller_heads=(2, 8, 10, 14, 20, 22)),
    Plan("synthetic-middle-1048576", questions=32, attention_heads=(0,)),
    Plan("synthetic-diffuse-1048576", questions=32),
    Plan("synthetic-sharp-1048576", questions=32),
)}

DEFAULT_SETS = ("encoder-114688", "rotary-131072", "synthetic-middle-131072", "recall-1048576",
                "encoder-1048576", "synthetic-middle-1048576")

QUICK = dict(questions=32, baseline_questions=32, peer_questions=8, peer_passes=1)
QUICK_PLANS = (
    Plan("encoder-114688", heads=(0, 13), baseline_heads=(0, 13), peer_heads=(0,),
         search_heads=(0,), append_heads=(0,), **QUICK),
    Plan("rotary-131072", heads=(0, 4), baseline_heads=(0, 4), **QUICK),
)


def first_heads(plan, count, all_heads):
    """The plan with at most `count` heads for each program; None leaves it as it is."""
    heads = tuple(all_heads) if plan.heads is None else plan.heads
    return replace(plan, heads=heads[:count], baseline_heads=plan.baseline_heads[:count],
                   peer_heads=plan.peer_heads[:count], search_heads=plan.search_heads[:count],
                   append_heads=plan.append_heads[:count],
                   attention_heads=plan.attention_heads[:count])


def chosen_plans(names, quick):
    """The plans of a call: of the given names, or the default ones. KeyError: no such set."""
    if quick:
        plans = {plan.name: plan for plan in QUICK_PLANS}
        return [plans[name] for name in names or plans]
    return [PLANS[name] for name in names or DEFAULT_SETS]
