#include "server/index/graph/hnsw_builder.h"

#include <hnswlib/hnswlib.h>

#include <algorithm>
#include <cmath>
#include <exception>
#include <string>

#include "absl/strings/str_cat.h"
#include "attention/vector_kernels.h"
#include "base/check.h"

namespace attic {
namespace {

constexpr size_t kFirstCapacity = 1024;
constexpr size_t kProgressNodes = 256;
// Factor by which R^2 exceeds the largest squared norm of the first insert.
constexpr double kRadiusSquaredHeadroom = 1.2;
// What hnswlib keeps per node beside rows and links: label map entry (bucket, node of the list),
// lock, level, visited mark, pointer to upper links.
constexpr uint64_t kBookkeepingBytes = 8 + 32 + sizeof(std::mutex) + 4 + 2 + 8;

// What hnswlib keeps of a row without copies, and passes to the distance.
struct BorrowedRow {
  uint32_t number;
  float rest;  // the augmenting element
};

struct DistanceParameters {
  size_t dim;  // of rows
  VectorsView rows;
  uint64_t computed;  // distances so far
};

// Of augmented float32 rows.
float CopiedDistance(const void* a, const void* b, const void* parameters) {
  auto* const distance = static_cast<DistanceParameters*>(const_cast<void*>(parameters));
  ++distance->computed;
  return SquaredDistance(static_cast<const float*>(a), static_cast<const float*>(b),
                         distance->dim + 1);
}

float BorrowedDistance(const void* a, const void* b, const void* parameters) {
  auto* const distance = static_cast<DistanceParameters*>(const_cast<void*>(parameters));
  ++distance->computed;
  const auto& row_a = *static_cast<const BorrowedRow*>(a);
  const auto& row_b = *static_cast<const BorrowedRow*>(b);
  const VectorsView& rows = distance->rows;
  const float rest = row_a.rest - row_b.rest;
  return SquaredDistance(rows.type, rows.row(row_a.number), rows.row(row_b.number), rows.dim) +
         rest * rest;
}

class AugmentedSpace final : public hnswlib::SpaceInterface<float> {
 public:
  AugmentedSpace(size_t dim, bool copy_rows)
      : copy_rows_(copy_rows), parameters_{.dim = dim, .rows = {}, .computed = 0} {}
  size_t get_data_size() override {
    return copy_rows_ ? (parameters_.dim + 1) * sizeof(float) : sizeof(BorrowedRow);
  }
  hnswlib::DISTFUNC<float> get_dist_func() override {
    return copy_rows_ ? CopiedDistance : BorrowedDistance;
  }
  void* get_dist_func_param() override { return &parameters_; }
  uint64_t computed() const { return parameters_.computed; }
  // To be read while rows are inserted.
  void SetRows(const VectorsView& rows) { parameters_.rows = rows; }

 private:
  const bool copy_rows_;
  DistanceParameters parameters_;
};

double SquaredNorm(std::span<const float> row) {
  double sum = 0.0;
  for (const float x : row) sum += static_cast<double>(x) * x;
  return sum;
}

double MaxSquaredNorm(const VectorsView& rows) {
  std::vector<float> row(rows.dim);
  double max = 0.0;
  for (size_t i = 0; i < rows.count; ++i) {
    ToFloat32(rows.row(i), rows.type, row);
    max = std::max(max, SquaredNorm(row));
  }
  return max;
}

}  // namespace

struct HnswBuilder::Index {
  Index(size_t dim, size_t capacity, const HnswOptions& options)
      : space(dim, options.copy_rows),
        graph(&space, capacity, options.links_per_node, options.construction_width, options.seed) {}

  AugmentedSpace space;
  hnswlib::HierarchicalNSW<float> graph;
};

HnswBuilder::HnswBuilder(size_t dim, const HnswOptions& options) : dim_(dim), options_(options) {
  ATTIC_CHECK(dim >= 1);
  // M - 1 and log(M) divide in hnswlib; above 10000 it prints and caps.
  ATTIC_CHECK(options.links_per_node >= 2 && options.links_per_node <= 10000);
}

HnswBuilder::~HnswBuilder() = default;

// Makes room for rows.count nodes; by eighths, because hnswlib moves everything when it grows, and
// room is memory that every head pays for.
absl::Status HnswBuilder::Reserve(const VectorsView& rows) {
  if (index_ == nullptr) {
    radius_squared_ = MaxSquaredNorm(rows) * kRadiusSquaredHeadroom;
    const size_t capacity = std::min(options_.nodes_max, std::max(kFirstCapacity, rows.count));
    index_ = std::make_unique<Index>(dim_, capacity, options_);
    return absl::OkStatus();
  }
  auto& graph = index_->graph;
  if (rows.count <= graph.max_elements_) return absl::OkStatus();
  const size_t more = graph.max_elements_ + graph.max_elements_ / 8;
  // hnswlib deletes the pool before it allocates the new one and would delete it again after a
  // failure.
  delete graph.visited_list_pool_;
  graph.visited_list_pool_ = nullptr;
  graph.resizeIndex(std::min(options_.nodes_max, std::max(more, rows.count)));
  return absl::OkStatus();
}

absl::Status HnswBuilder::Insert(const VectorsView& rows,
                                 const std::function<void(size_t)>& progress) {
  ATTIC_CHECK(rows.dim == dim_);
  if (rows.count <= node_count_) return absl::OkStatus();
  if (broken_) return absl::ResourceExhaustedError("graph: an earlier insert ran out of memory");
  if (rows.count > options_.nodes_max) {
    return absl::ResourceExhaustedError(
        absl::StrCat("graph: ", rows.count, " nodes exceed nodes_max ", options_.nodes_max));
  }
  try {
    if (absl::Status status = Reserve(rows); !status.ok()) return status;
    index_->space.SetRows(rows);
    std::vector<float> augmented(dim_ + 1);
    const std::span<float> row(augmented.data(), dim_);
    while (node_count_ < rows.count) {
      ToFloat32(rows.row(node_count_), rows.type, row);
      const double rest = radius_squared_ - SquaredNorm(row);
      augmented.back() = static_cast<float>(std::sqrt(std::max(0.0, rest)));
      const BorrowedRow borrowed{static_cast<uint32_t>(node_count_), augmented.back()};
      const void* const data = options_.copy_rows ? static_cast<const void*>(augmented.data())
                                                  : static_cast<const void*>(&borrowed);
      index_->graph.addPoint(data, node_count_);
      ++node_count_;
      if (progress && node_count_ % kProgressNodes == 0) progress(node_count_);
    }
  } catch (const std::exception& error) {
    broken_ = true;
    return absl::ResourceExhaustedError(
        absl::StrCat("graph: insert of node ", node_count_, " failed: ", error.what()));
  }
  return absl::OkStatus();
}

std::span<const uint32_t> HnswBuilder::Links(uint32_t node) const {
  ATTIC_CHECK(node < node_count_);
  const hnswlib::linklistsizeint* const list = index_->graph.get_linklist0(node);
  const size_t count = index_->graph.getListCount(const_cast<hnswlib::linklistsizeint*>(list));
  return {list + 1, count};
}

std::vector<uint32_t> HnswBuilder::HighestNodes(size_t count) const {
  std::vector<uint32_t> nodes;
  if (node_count_ == 0 || count == 0) return nodes;
  const auto& graph = index_->graph;
  for (uint32_t node = 0; node < node_count_; ++node) {
    if (graph.element_levels_[node] > 0) nodes.push_back(node);
  }
  const auto higher = [&](uint32_t a, uint32_t b) {
    const int level_a = graph.element_levels_[a];
    const int level_b = graph.element_levels_[b];
    return level_a != level_b ? level_a > level_b : a < b;
  };
  // The entry point has the highest level, but so may later nodes.
  const uint32_t entry = graph.enterpoint_node_ < node_count_ ? graph.enterpoint_node_ : 0;
  std::erase(nodes, entry);
  const size_t others = std::min(count - 1, nodes.size());
  std::partial_sort(nodes.begin(), nodes.begin() + others, nodes.end(), higher);
  nodes.resize(others);
  nodes.insert(nodes.begin(), entry);
  return nodes;
}

std::vector<ScoredNode> HnswBuilder::Search(const float* query, size_t k, size_t ef,
                                            uint64_t& visits) const {
  ATTIC_CHECK(options_.copy_rows);
  std::vector<ScoredNode> best;
  if (node_count_ == 0 || broken_) return best;
  auto& graph = index_->graph;
  std::vector<float> augmented(query, query + dim_);
  augmented.push_back(0.0f);
  graph.setEf(std::max(ef, k));
  const uint64_t computed_before = index_->space.computed();
  auto found = graph.searchKnn(augmented.data(), std::min(k, node_count_));
  visits += index_->space.computed() - computed_before;
  for (; !found.empty(); found.pop()) {
    const auto node = static_cast<uint32_t>(found.top().second);
    const auto* row = reinterpret_cast<const float*>(graph.getDataByInternalId(node));
    best.push_back({Dot(query, row, dim_), node});
  }
  std::sort(best.begin(), best.end(), BetterNode);
  return best;
}

uint64_t HnswBuilder::memory_bytes() const {
  if (index_ == nullptr) return 0;
  const auto& graph = index_->graph;
  uint64_t bytes = graph.max_elements_ * (graph.size_data_per_element_ + kBookkeepingBytes) +
                   graph.link_list_update_locks_.size() * sizeof(std::mutex);
  for (size_t node = 0; node < node_count_; ++node) {
    bytes += static_cast<uint64_t>(graph.element_levels_[node]) * graph.size_links_per_element_;
  }
  return bytes;
}

}  // namespace attic
