#include "server/index/search/row_reader.h"

#include <cstring>
#include <utility>

#include "attention/element_type.h"
#include "base/check.h"

namespace attic {
namespace {

constexpr uint64_t kPinnedBytesMax = 64u << 20;  // of clusters held for their values
constexpr size_t kKeptTogether = 256;            // rows in one allocation

}  // namespace

void RowReader::Begin(const IndexedPart& part) {
  part_ = &part;
  key_bytes_ = part.shape.head_dim * ElementBytes(part.shape.element_type);
  value_bytes_ = part.shape.value_dim * ElementBytes(part.shape.element_type);
  segments_.assign(part.segments.size(), {});
  reads_.clear();
  nodes_.clear();
  pins_.clear();
  pinned_bytes_ = 0;
  kept_.clear();
  kept_left_ = 0;
  scanned_ = nullptr;
  status_ = absl::OkStatus();
}

RowReader::SegmentState& RowReader::State(size_t segment) {
  SegmentState& state = segments_[segment];
  if (!state.known) {
    state.known = true;
    state.arrays = part_->segments[segment]->vectors->arrays();
    state.row_begin = part_->segments[segment]->clusters.row_begin.data();
  }
  return state;
}

void RowReader::ForgetFetched() {
  for (const uint32_t node : nodes_) {
    const size_t per_segment = part_->clusters_per_segment;
    segments_[node / per_segment].fetched[node % per_segment] = 0;
  }
  reads_.clear();
  nodes_.clear();
}

bool RowReader::Fetch(std::span<const ClusterRow> rows, ReadStatistics& read) {
  if (!status_.ok()) return false;
  ForgetFetched();
  const size_t per_segment = part_->clusters_per_segment;
  for (const ClusterRow& row : rows) {
    SegmentState& state = State(row.node / per_segment);
    SegmentVectors& vectors = *part_->segments[row.node / per_segment]->vectors;
    vectors.CountRead(row.node % per_segment);
    if (state.arrays != nullptr) continue;
    state.fetched.resize(per_segment);
    uint32_t& fetched = state.fetched[row.node % per_segment];
    if (fetched != 0) continue;
    nodes_.push_back(row.node);
    fetched = static_cast<uint32_t>(nodes_.size());
  }
  if (nodes_.empty()) return true;
  std::vector<std::shared_ptr<const VectorSource>> sources;  // alive while they are read from
  for (const uint32_t node : nodes_) {
    sources.push_back(part_->segments[node / per_segment]->vectors->source());
    reads_.push_back(
        {.source = sources.back().get(), .cluster = static_cast<uint32_t>(node % per_segment)});
  }
  pinned_.assign(reads_.size(), false);
  status_ = reads_.front().source->ReadClusters(reads_);
  for (const ClusterRead& done : reads_) read.disk_bytes_read += done.disk_bytes;
  return status_.ok();
}

RowReader::RowPointers RowReader::Rows(ClusterRow row) {
  const size_t cluster = row.node % part_->clusters_per_segment;
  const SegmentState& state = State(row.node / part_->clusters_per_segment);
  if (state.arrays != nullptr) {
    const size_t at = state.row_begin[cluster] + row.offset;
    return {state.arrays->keys.data() + at * key_bytes_,
            state.arrays->values.data() + at * value_bytes_};
  }
  ATTIC_CHECK(!state.fetched.empty() && state.fetched[cluster] != 0);
  const ClusterRows& rows = reads_[state.fetched[cluster] - 1].rows;
  return {rows.keys + row.offset * key_bytes_, rows.values + row.offset * value_bytes_};
}

// Holds a cluster that was read, if it is not too much to hold.
bool RowReader::Pin(size_t read) {
  if (pinned_[read]) return true;
  const ClusterSums& clusters = part_->segment_of_node(nodes_[read]).clusters;
  const size_t rows = clusters.rows(nodes_[read] % part_->clusters_per_segment);
  const uint64_t bytes = rows * (key_bytes_ + value_bytes_);
  if (pinned_bytes_ + bytes > kPinnedBytesMax) return false;
  pinned_bytes_ += bytes;
  pinned_[read] = true;
  pins_.push_back(reads_[read].rows.owner);
  return true;
}

const std::byte* RowReader::KeepValue(ClusterRow row) {
  const std::byte* value = Rows(row).values;
  const SegmentState& state = State(row.node / part_->clusters_per_segment);
  if (state.arrays != nullptr) return value;
  if (Pin(state.fetched[row.node % part_->clusters_per_segment] - 1)) return value;
  if (kept_left_ == 0) {
    kept_.emplace_back(new std::byte[kKeptTogether * value_bytes_]);
    kept_left_ = kKeptTogether;
  }
  std::byte* copy = kept_.back().get() + (kKeptTogether - kept_left_) * value_bytes_;
  --kept_left_;
  std::memcpy(copy, value, value_bytes_);
  return copy;
}

const VectorArrays* RowReader::Arrays(size_t segment, ReadStatistics& read) {
  if (!status_.ok()) return nullptr;
  SegmentState& state = State(segment);
  if (state.arrays != nullptr) return state.arrays.get();
  auto arrays = part_->segments[segment]->vectors->ArraysOrRead();
  if (!arrays.ok()) {
    status_ = arrays.status();
    return nullptr;
  }
  read.disk_bytes_read += (*arrays)->bytes();
  scanned_ = *std::move(arrays);
  return scanned_.get();
}

}  // namespace attic
