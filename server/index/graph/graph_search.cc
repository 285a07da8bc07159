#include "server/index/graph/graph_search.h"

#include <algorithm>
#include <limits>

#include "attention/gather_scores.h"
#include "base/check.h"

namespace attic {
namespace {

constexpr float kLowest = std::numeric_limits<float>::lowest();
// The frontier is cut back to its ef best when it holds this many times ef nodes (and a few): those
// cut off are worse than ef known ones, so they would never be expanded.
constexpr size_t kFrontierFactor = 2;
constexpr size_t kFrontierMin = 64;

bool BestOnTop(const ScoredNode& a, const ScoredNode& b) { return a.score < b.score; }
bool WorstOnTop(const ScoredNode& a, const ScoredNode& b) { return a.score > b.score; }

// Begins a search: after it no node counts as visited.
void BeginRound(size_t node_count, GraphSearchScratch& scratch) {
  if (scratch.visited_round.size() < node_count) scratch.visited_round.resize(node_count, 0);
  if (++scratch.round == 0) {
    std::fill(scratch.visited_round.begin(), scratch.visited_round.end(), 0);
    scratch.round = 1;
  }
}

// Lists those of `nodes` not visited before in scratch.unvisited, marks them, and returns how many.
size_t TakeUnvisited(std::span<const uint32_t> nodes, GraphSearchScratch& scratch) {
  if (scratch.unvisited.size() < nodes.size()) {
    scratch.unvisited.resize(nodes.size());
    scratch.scores.resize(nodes.size());
  }
  uint32_t* const out = scratch.unvisited.data();
  uint32_t* const visited = scratch.visited_round.data();
  const uint32_t round = scratch.round;
  size_t count = 0;
  // Without a branch: whether a neighbour was visited is close to a coin toss.
  for (const uint32_t node : nodes) {
    out[count] = node;
    count += visited[node] != round;
    visited[node] = round;
  }
  return count;
}

// Scores the first `count` nodes of scratch.unvisited and offers each to `best` and to the
// frontier.
void ScoreAndOffer(const VectorsView& vectors, size_t count, size_t ef,
                   GraphSearchScratch& scratch) {
  GatherScores(scratch.packed_query.data(), vectors, {scratch.unvisited.data(), count},
               scratch.scores.data());
  std::vector<ScoredNode>& best = scratch.best;
  std::vector<ScoredNode>& frontier = scratch.frontier;
  for (size_t i = 0; i < count; ++i) {
    // NaN, which orders with nothing, becomes the lowest score.
    const float score = scratch.scores[i] > kLowest ? scratch.scores[i] : kLowest;
    if (best.size() == ef) {
      if (score <= best.front().score) continue;
      std::pop_heap(best.begin(), best.end(), WorstOnTop);
      best.back() = {score, scratch.unvisited[i]};
    } else {
      best.push_back({score, scratch.unvisited[i]});
    }
    std::push_heap(best.begin(), best.end(), WorstOnTop);
    if (frontier.size() == kFrontierFactor * ef + kFrontierMin) {
      std::nth_element(frontier.begin(), frontier.begin() + (ef - 1), frontier.end(), WorstOnTop);
      frontier.resize(ef);
      std::make_heap(frontier.begin(), frontier.end(), BestOnTop);
    }
    frontier.push_back({score, scratch.unvisited[i]});
    std::push_heap(frontier.begin(), frontier.end(), BestOnTop);
  }
}

}  // namespace

void SearchGraph(const GraphView& graph, const float* query, const VectorsView& vectors, size_t ef,
                 GraphSearchScratch& scratch, std::vector<ScoredNode>& best, uint64_t& visits) {
  ATTIC_CHECK(ef >= 1);
  ATTIC_CHECK(vectors.count >= graph.node_count());
  best.clear();
  if (graph.node_count() == 0) return;
  ef = std::min(ef, graph.node_count());
  BeginRound(graph.node_count(), scratch);
  scratch.packed_query.resize(PackedQueryFloats(vectors.dim));
  PackQuery(query, vectors.dim, vectors.type, scratch.packed_query.data());
  scratch.frontier.clear();
  scratch.frontier.reserve(kFrontierFactor * ef + kFrontierMin);
  scratch.best.clear();
  scratch.best.reserve(ef);

  const size_t entry_count = TakeUnvisited(graph.entries, scratch);
  visits += entry_count;
  ScoreAndOffer(vectors, entry_count, ef, scratch);
  while (!scratch.frontier.empty()) {
    const ScoredNode next = scratch.frontier.front();
    if (scratch.best.size() == ef && next.score < scratch.best.front().score) break;
    std::pop_heap(scratch.frontier.begin(), scratch.frontier.end(), BestOnTop);
    scratch.frontier.pop_back();
    const uint32_t begin = graph.offsets[next.node];
    const auto neighbors = graph.neighbors.subspan(begin, graph.offsets[next.node + 1] - begin);
    scratch.links_read += neighbors.size();
    const size_t count = TakeUnvisited(neighbors, scratch);
    visits += count;
    ScoreAndOffer(vectors, count, ef, scratch);
    if (!scratch.frontier.empty()) {
      __builtin_prefetch(graph.neighbors.data() + graph.offsets[scratch.frontier.front().node]);
    }
  }
  best.assign(scratch.best.begin(), scratch.best.end());
  std::sort(best.begin(), best.end(), BetterNode);
}

}  // namespace attic
