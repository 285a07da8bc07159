#include "server/index/graph/query_aware_graph.h"

#include <algorithm>
#include <limits>
#include <new>

#include "absl/strings/str_cat.h"
#include "server/index/graph/query_aware_edges.h"

namespace attic {
namespace {

// Offsets into the neighbour array are 32 bits wide.
size_t NodesMax(const GraphOptions& options) {
  const size_t degree_max = 2 * options.links_per_node + options.side_edges_max;
  return std::min<size_t>(options.nodes_max, std::numeric_limits<uint32_t>::max() / degree_max);
}

// At most `count_max` of the `count` rows of `queries`, evenly strided.
std::vector<float> StridedQueries(std::span<const float> queries, size_t dim, size_t count_max) {
  const size_t count = queries.size() / dim;
  const size_t taken = std::min(count, count_max);
  std::vector<float> out;
  out.reserve(taken * dim);
  for (size_t i = 0; i < taken; ++i) {
    const float* const query = queries.data() + i * count / taken * dim;
    out.insert(out.end(), query, query + dim);
  }
  return out;
}

}  // namespace

void QueryAwareGraph::Search(const float* query, const VectorsView& vectors, size_t ef,
                             GraphSearchScratch& scratch, std::vector<ScoredNode>& best,
                             uint64_t& visits) const {
  SearchGraph({offsets_, neighbors_, entries_}, query, vectors, ef, scratch, best, visits);
}

uint64_t QueryAwareGraph::memory_bytes() const {
  return sizeof(*this) +
         (offsets_.capacity() + neighbors_.capacity() + entries_.capacity()) * sizeof(uint32_t);
}

QueryAwareGraphBuilder::QueryAwareGraphBuilder(size_t dim, const GraphOptions& options)
    : dim_(dim),
      options_(options),
      hnsw_(dim, {.links_per_node = options.links_per_node,
                  .construction_width = options.construction_width,
                  .nodes_max = NodesMax(options),
                  .seed = options.seed,
                  .copy_rows = options.copy_rows}) {}

QueryAwareGraphBuilder::~QueryAwareGraphBuilder() = default;

absl::Status QueryAwareGraphBuilder::Insert(const VectorsView& vectors,
                                            const std::function<void(size_t)>& progress) {
  if (vectors.dim != dim_) {
    return absl::InvalidArgumentError(
        absl::StrCat("graph: vectors have dim ", vectors.dim, ", the graph has ", dim_));
  }
  return hnsw_.Insert(vectors, progress);
}

absl::StatusOr<std::shared_ptr<const QueryAwareGraph>> QueryAwareGraphBuilder::Publish(
    const VectorsView& vectors, std::span<const float> training_queries) const {
  const size_t node_count = hnsw_.node_count();
  if (vectors.dim != dim_ || vectors.count < node_count || training_queries.size() % dim_ != 0) {
    return absl::InvalidArgumentError(absl::StrCat(
        "graph: vectors (", vectors.count, ", ", vectors.dim, ") and ", training_queries.size(),
        " floats of training queries do not fit a graph of ", node_count, " nodes, dim ", dim_));
  }
  const VectorsView rows = vectors.rows(0, node_count);
  try {
    const std::vector<float> queries =
        StridedQueries(training_queries, dim_, options_.training_queries_max);
    const size_t list_length = std::min(options_.training_neighbors, node_count);
    const std::vector<ScoredNode> best =
        ExactNeighbors(queries.data(), queries.size() / dim_, rows, list_length);
    const SideEdges side = BuildSideEdges(rows, best, list_length, options_.side_edges_max);

    auto graph = std::make_shared<QueryAwareGraph>();
    graph->node_count_ = node_count;
    graph->entries_ = HotNodes(best, list_length, options_.hot_entries);
    // The highest levels of hnswlib make up for hot entries that are missing.
    const size_t more = options_.hot_entries + 1 - graph->entries_.size();
    for (const uint32_t node : hnsw_.HighestNodes(more)) graph->entries_.push_back(node);

    graph->offsets_.reserve(node_count + 1);
    graph->offsets_.push_back(0);
    graph->neighbors_.reserve(node_count * options_.links_per_node + side.nodes.size());
    for (uint32_t node = 0; node < node_count; ++node) {
      const size_t begin = graph->neighbors_.size();
      for (const uint32_t link : hnsw_.Links(node)) {
        if (link < node_count) graph->neighbors_.push_back(link);
      }
      const size_t end = graph->neighbors_.size();
      for (const uint32_t link : side.of(node)) {
        const auto links = std::span(graph->neighbors_).subspan(begin, end - begin);
        if (std::ranges::find(links, link) == links.end()) graph->neighbors_.push_back(link);
      }
      graph->offsets_.push_back(static_cast<uint32_t>(graph->neighbors_.size()));
    }
    graph->neighbors_.shrink_to_fit();
    return std::shared_ptr<const QueryAwareGraph>(std::move(graph));
  } catch (const std::bad_alloc&) {
    return absl::ResourceExhaustedError("graph: out of memory while publishing");
  }
}

size_t QueryAwareGraphBuilder::node_count() const { return hnsw_.node_count(); }

uint64_t QueryAwareGraphBuilder::memory_bytes() const {
  return sizeof(*this) + hnsw_.memory_bytes();
}

std::vector<ScoredNode> QueryAwareGraphBuilder::SearchPlainHnsw(const float* query, size_t k,
                                                                size_t ef, uint64_t* visits) const {
  uint64_t ignored = 0;
  return hnsw_.Search(query, k, ef, visits == nullptr ? ignored : *visits);
}

}  // namespace attic
