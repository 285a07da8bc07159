"""Top-k retrieval: the best keys attended exactly, the others dropped.

RetrievalAttention (arXiv 2409.10516, equations 4 and 5) finds them with a graph. Here the search is
an oracle, so that no better graph exists; the group shares its keys. Its charge is a choice: none,
or the keys visited at the lower end of what the paper measures (1 to 3% for recall 0.95, figure 6).
"""

from .method import Answer, Baseline, group_scores

GRAPH_VISITED_SHARE = 0.01


class TopK(Baseline):
    def __init__(self, visited_share=0.0):
        self.visited_share = visited_share
        charge = f"{visited_share:.0%} of keys visited" if visited_share else "free search"
        self.name = f"top-k (oracle, {charge})"

    @property
    def search_bytes(self):
        return self.visited_share * self.head.tokens * self.head.key_bytes

    def settings(self, budget):
        spare = budget * self.head.all_bytes - self.search_bytes
        if spare >= self.head.row_bytes:
            yield min(self.head.tokens, int(spare / self.head.row_bytes))

    def answer(self, queries, setting):
        rows = self.last.get(queries, "ranking", lambda: self._ranking(queries))[:setting]
        total = self.head.new_sum(queries)
        self.head.attend_rows(total, queries, rows)
        return Answer(total.output(), self.search_bytes + len(rows) * self.head.row_bytes)

    def _ranking(self, queries):
        logits = queries @ self.head.keys.T * self.head.logit_scale
        return group_scores(logits).argsort(descending=True)
