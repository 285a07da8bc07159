#include "server/index/graph/query_aware_edges.h"

#include <algorithm>
#include <cstring>
#include <limits>
#include <unordered_map>
#include <utility>

#include "attention/vector_kernels.h"
#include "base/check.h"

namespace attic {
namespace {

constexpr size_t kHotListLength = 10;  // "the first few" of a training query's list

// One direction of a tree edge.
struct ProposedEdge {
  uint32_t from;
  uint32_t to;
  float squared_distance;
};

bool ByEnds(const ProposedEdge& a, const ProposedEdge& b) {
  return a.from != b.from ? a.from < b.from : a.to < b.to;
}

// Squared distances between the rows of a list, through their inner products: one blocked product
// instead of count^2 / 2 scattered ones. Rounding may leave small negative values.
class ListDistances {
 public:
  ListDistances(size_t list_length, size_t dim)
      : dim_(dim), rows_(list_length * dim), squared_(list_length * list_length) {}

  std::span<const float> Compute(const VectorsView& vectors, std::span<const ScoredNode> list) {
    for (size_t i = 0; i < list.size(); ++i) {
      ToFloat32(vectors.row(list[i].node), vectors.type, {rows_.data() + i * dim_, dim_});
    }
    const size_t n = list.size();
    const VectorsView rows{reinterpret_cast<const std::byte*>(rows_.data()), ElementType::kFloat32,
                           n, dim_};
    ScoreVectors(rows_.data(), n, rows, squared_.data());
    norms_.resize(n);
    for (size_t i = 0; i < n; ++i) norms_[i] = squared_[i * n + i];
    for (size_t i = 0; i < n; ++i) {
      for (size_t j = 0; j < n; ++j) {
        squared_[i * n + j] = norms_[i] + norms_[j] - 2.0f * squared_[i * n + j];
      }
    }
    return {squared_.data(), n * n};
  }

 private:
  const size_t dim_;
  std::vector<float> rows_;
  std::vector<float> squared_;
  std::vector<float> norms_;
};

struct CountedEdge {
  uint32_t to;
  uint32_t queries;  // training queries that proposed it
  float squared_distance;
};

// Appends the kept edges of one node to `kept`. `edges` are its proposals, those with the same end
// next to each other.
void KeepMostProposed(std::span<const ProposedEdge> edges, size_t edges_max,
                      std::vector<CountedEdge>& counted, std::vector<uint32_t>& kept) {
  counted.clear();
  for (const ProposedEdge& edge : edges) {
    if (counted.empty() || counted.back().to != edge.to) {
      counted.push_back({edge.to, 0, edge.squared_distance});
    }
    ++counted.back().queries;
  }
  std::sort(counted.begin(), counted.end(), [](const CountedEdge& a, const CountedEdge& b) {
    if (a.queries != b.queries) return a.queries > b.queries;
    if (a.squared_distance != b.squared_distance) return a.squared_distance < b.squared_distance;
    return a.to < b.to;
  });
  if (counted.size() > edges_max) counted.resize(edges_max);
  for (const CountedEdge& edge : counted) kept.push_back(edge.to);
}

}  // namespace

std::vector<std::pair<uint32_t, uint32_t>> MinimumSpanningTree(
    std::span<const float> squared_distances, size_t count) {
  ATTIC_CHECK(squared_distances.size() == count * count);
  std::vector<std::pair<uint32_t, uint32_t>> tree;
  if (count < 2) return tree;
  tree.reserve(count - 1);
  // Points outside the tree, each with the tree's nearest point.
  std::vector<uint32_t> outside(count - 1), parent(count, 0);
  std::vector<float> nearest(squared_distances.begin(), squared_distances.begin() + count);
  for (uint32_t i = 1; i < count; ++i) outside[i - 1] = i;
  while (!outside.empty()) {
    size_t next = 0;
    for (size_t i = 1; i < outside.size(); ++i) {
      if (nearest[outside[i]] < nearest[outside[next]]) next = i;
    }
    const uint32_t joined = outside[next];
    outside[next] = outside.back();
    outside.pop_back();
    tree.emplace_back(parent[joined], joined);
    const float* const distances = squared_distances.data() + joined * count;
    for (const uint32_t point : outside) {
      if (distances[point] < nearest[point]) {
        nearest[point] = distances[point];
        parent[point] = joined;
      }
    }
  }
  return tree;
}

SideEdges BuildSideEdges(const VectorsView& vectors, std::span<const ScoredNode> best,
                         size_t list_length, size_t edges_max) {
  SideEdges side;
  if (list_length < 2 || best.empty() || edges_max == 0) return side;
  ATTIC_CHECK(best.size() % list_length == 0);
  std::vector<ProposedEdge> proposed;
  proposed.reserve(2 * (best.size() - best.size() / list_length));
  ListDistances distances(list_length, vectors.dim);
  for (size_t begin = 0; begin < best.size(); begin += list_length) {
    const std::span<const ScoredNode> list = best.subspan(begin, list_length);
    const std::span<const float> squared = distances.Compute(vectors, list);
    for (const auto& [a, b] : MinimumSpanningTree(squared, list_length)) {
      const float distance = squared[a * list_length + b];
      proposed.push_back({list[a].node, list[b].node, distance});
      proposed.push_back({list[b].node, list[a].node, distance});
    }
  }
  std::sort(proposed.begin(), proposed.end(), ByEnds);

  side.offsets.assign(vectors.count + 1, 0);
  std::vector<CountedEdge> counted;
  size_t begin = 0;
  for (size_t node = 0; node < vectors.count; ++node) {
    size_t end = begin;
    while (end < proposed.size() && proposed[end].from == node) ++end;
    KeepMostProposed({proposed.data() + begin, end - begin}, edges_max, counted, side.nodes);
    side.offsets[node + 1] = static_cast<uint32_t>(side.nodes.size());
    begin = end;
  }
  return side;
}

std::vector<uint32_t> HotNodes(std::span<const ScoredNode> best, size_t list_length, size_t count) {
  std::vector<uint32_t> hot;
  if (best.empty() || list_length == 0) return hot;
  struct Counts {
    uint32_t first = 0;
    uint32_t among_few = 0;
  };
  std::unordered_map<uint32_t, Counts> counts;
  const size_t few = std::min(kHotListLength, list_length);
  for (size_t begin = 0; begin < best.size(); begin += list_length) {
    ++counts[best[begin].node].first;
    for (size_t i = 0; i < few; ++i) ++counts[best[begin + i].node].among_few;
  }
  std::vector<std::pair<uint32_t, Counts>> ranked(counts.begin(), counts.end());
  const size_t kept = std::min(count, ranked.size());
  std::partial_sort(ranked.begin(), ranked.begin() + kept, ranked.end(),
                    [](const auto& a, const auto& b) {
                      if (a.second.first != b.second.first) return a.second.first > b.second.first;
                      if (a.second.among_few != b.second.among_few) {
                        return a.second.among_few > b.second.among_few;
                      }
                      return a.first < b.first;
                    });
  for (size_t i = 0; i < kept; ++i) hot.push_back(ranked[i].first);
  return hot;
}

}  // namespace attic
