#include "server/index/search/descent.h"

#include <algorithm>
#include <cmath>

#include "attention/vector_kernels.h"
#include "server/index/codes/residual_kernels.h"
#include "server/index/graph/gather_scores.h"

namespace attic {

Descent::Descent(const IndexedPart& part, const DescentRequest& request, DescentState& state,
                 ReadStatistics& read)
    : part_(part),
      request_(request),
      group_(request.queries.size() / part.shape.head_dim),
      super_count_(part.super_cluster_count()),
      code_dim_(ResidualCodeDim(*part.rotation)),
      key_bytes_((part.shape.head_dim + part.shape.value_dim) *
                 ElementBytes(part.shape.element_type)),
      s_(state),
      read_(read) {}

void Descent::Begin() {
  s_.super_state.assign(super_count_, SuperState::kWhole);
  s_.opened_index.assign(super_count_, 0);
  s_.opened.clear();
  s_.cluster_state.clear();
  s_.cluster_logits.clear();
  s_.cluster_log_mass.clear();
  s_.coded.clear();
  s_.coded_index.clear();
  s_.row_logits.clear();
  s_.row_mass.clear();
  s_.row_exact.clear();
  s_.row_totals.clear();
  s_.changed.clear();
  s_.reference.clear();
  s_.super_wide_mass.clear();
  s_.cluster_wide_mass.clear();
  s_.cluster_mass.clear();
  s_.cluster_doubt.clear();
  s_.partial.clear();
  s_.keys_may_hide = true;
  s_.doubts_known = false;
  s_.coarse_square.assign(group_, 0.0f);
  s_.scale.assign(group_, 1.0f);
  s_.residual_queries.clear();
  ScoreSuperClusters();
  for (size_t i = 0; i < part_.segments.size(); ++i) MarkSegment(i);
}

void Descent::ScoreSuperClusters() {
  const EstimateTerms& terms = *part_.terms;
  const size_t head_dim = part_.shape.head_dim;
  s_.super_norms.resize(group_);
  s_.cluster_norms.resize(group_);
  s_.super_doubt_norms.resize(group_);
  s_.cluster_doubt_norms.resize(group_);
  s_.super_logits.resize(group_ * super_count_);
  s_.super_log_mass.resize(group_ * super_count_);
  ScoreVectors(request_.queries.data(), group_, part_.super_centroids(), s_.super_logits.data());
  for (size_t g = 0; g < group_; ++g) {
    const std::span<const float> query = request_.queries.subspan(g * head_dim, head_dim);
    s_.super_norms[g] = DeviationNorm(terms.variance, terms.super_clusters, query);
    s_.cluster_norms[g] = DeviationNorm(terms.variance, terms.clusters, query);
    const float wide = masses_are_narrow() ? part_.calibration.wide_norm : 1.0f;
    s_.super_doubt_norms[g] =
        wide * DeviationNorm(VarianceTerm::kPooled, terms.super_clusters, query);
    s_.cluster_doubt_norms[g] = wide * DeviationNorm(VarianceTerm::kPooled, terms.clusters, query);
    EstimateLogMass(s_.super_logits.data() + g * super_count_, part_.super_sums(),
                    s_.super_norms[g], s_.super_log_mass.data() + g * super_count_);
  }
  read_.bytes_read += super_count_ * (head_dim * 2 + kSumsBytes);
}

void Descent::MarkSegment(size_t index) {
  const Segment& segment = *part_.segments[index];
  const PositionRange range = request_.range;
  if (range.begin <= segment.begin_position && range.end >= segment.end_position()) return;
  const size_t first_super = index * part_.super_clusters_per_segment;
  if (segment.end_position() <= range.begin || segment.begin_position >= range.end) {
    std::fill_n(s_.super_state.begin() + first_super, part_.super_clusters_per_segment,
                SuperState::kExcluded);
    return;
  }
  for (size_t s = 0; s < segment.super_clusters.count; ++s) {
    const size_t begin = segment.super_cluster_begin[s], end = segment.super_cluster_begin[s + 1];
    size_t rows = 0;
    for (size_t c = begin; c < end; ++c) {
      const Segment::Rows in_range = segment.RowsInRange(c, range);
      rows += in_range.end - in_range.begin;
    }
    if (rows == segment.super_clusters.rows(s)) continue;
    if (rows == 0) {
      s_.super_state[first_super + s] = SuperState::kExcluded;
      continue;
    }
    const size_t place = OpenSuper(first_super + s);
    for (size_t c = begin; c < end; ++c) {
      const Segment::Rows in_range = segment.RowsInRange(c, range);
      const size_t n = in_range.end - in_range.begin;
      if (n == segment.clusters.rows(c)) continue;
      s_.cluster_state[s_.opened[place].offset + c - begin] =
          n == 0 ? ClusterState::kExcluded : ClusterState::kPartial;
      if (n != 0) {
        s_.partial.push_back(static_cast<uint32_t>(index * part_.clusters_per_segment + c));
      }
    }
  }
}

void Descent::PrepareQueries() {
  if (!s_.residual_queries.empty()) return;
  const size_t head_dim = part_.shape.head_dim, packed = PackedQueryFloats(head_dim);
  s_.packed.resize(group_ * packed);
  for (size_t g = 0; g < group_; ++g) {
    PackQuery(request_.queries.data() + g * head_dim, head_dim, part_.shape.element_type,
              s_.packed.data() + g * packed);
  }
  s_.coefficients.resize(group_ * code_dim_);
  s_.rotated.resize(part_.rotation->code_dim());
  for (size_t g = 0; g < group_; ++g) {
    s_.residual_queries.push_back(
        MakeResidualQuery(*part_.rotation, request_.queries.data() + g * part_.shape.head_dim,
                          s_.rotated.data(), s_.coefficients.data() + g * code_dim_));
  }
}

size_t Descent::OpenSuper(size_t super_cluster) {
  if (s_.opened_index[super_cluster] != 0) return s_.opened_index[super_cluster] - 1;
  s_.super_state[super_cluster] = SuperState::kOpened;
  const size_t index = super_cluster / part_.super_clusters_per_segment;
  const size_t local = super_cluster % part_.super_clusters_per_segment;
  const Segment& segment = *part_.segments[index];
  const size_t begin = segment.super_cluster_begin[local];
  const size_t count = segment.super_cluster_begin[local + 1] - begin;
  const size_t first_node = index * part_.clusters_per_segment + begin;
  const size_t offset = s_.cluster_state.size();
  s_.opened.push_back({static_cast<uint32_t>(first_node), static_cast<uint32_t>(count),
                       static_cast<uint32_t>(offset)});
  s_.opened_index[super_cluster] = static_cast<uint32_t>(s_.opened.size());
  s_.cluster_state.resize(offset + count, ClusterState::kEstimated);
  s_.coded_index.resize(offset + count, 0);
  s_.cluster_logits.resize(group_ * (offset + count));
  s_.cluster_log_mass.resize(group_ * (offset + count));
  float* logits = s_.cluster_logits.data() + group_ * offset;
  ScoreVectors(request_.queries.data(), group_, part_.centroids().rows(first_node, count), logits);
  const GroupSums sums = GroupSums::Of(segment.clusters, begin, count);
  for (size_t g = 0; g < group_; ++g) {
    EstimateLogMass(logits + g * count, sums, s_.cluster_norms[g],
                    s_.cluster_log_mass.data() + group_ * offset + g * count);
  }
  read_.bytes_read += count * cluster_bytes();
  if (!s_.reference.empty()) {
    for (size_t g = 0; g < group_; ++g) {
      s_.super_mass[g * super_count_ + super_cluster] = 0;
      s_.super_doubt[g * super_count_ + super_cluster] = 0;
      if (masses_are_narrow()) s_.super_wide_mass[g * super_count_ + super_cluster] = 0;
    }
    WeighClusters(s_.opened.back());
  }
  return s_.opened.size() - 1;
}

void Descent::CodeCluster(const OpenedSuper& open, size_t cluster) {
  PrepareQueries();
  const Segment& segment = SegmentOf(open);
  const size_t local = open.first_node % part_.clusters_per_segment + cluster;
  const size_t first = segment.clusters.row_begin[local];
  const size_t rows = segment.clusters.rows(local);
  const size_t offset = s_.row_exact.size();
  s_.cluster_state[open.offset + cluster] = ClusterState::kCoded;
  s_.coded_index[open.offset + cluster] = static_cast<uint32_t>(s_.coded.size() + 1);
  const uint8_t* factors = segment.residuals.factor.data() + first;
  const float unit = segment.residuals.factor_unit[local];
  float largest = 0, squares = 0;
  for (size_t i = 0; i < rows; ++i) {
    const float f = unit * static_cast<float>(factors[i]);
    largest = std::max(largest, f);
    squares += f * f;
  }
  s_.changed.push_back(static_cast<uint32_t>(s_.coded.size()));
  s_.coded.push_back({.node = static_cast<uint32_t>(open.first_node + cluster),
                      .rows = static_cast<uint32_t>(rows),
                      .offset = static_cast<uint32_t>(offset),
                      .exact = 0});
  const float mean_square = rows == 0 ? 0.0f : squares / static_cast<float>(rows);
  s_.row_exact.resize(offset + rows, 0);
  s_.row_logits.resize(group_ * (offset + rows));
  s_.row_mass.resize(group_ * (offset + rows), 0.0f);
  s_.sums.resize(group_ * rows);
  ScoreResiduals(segment.residuals.row(first), rows, code_dim_, s_.coefficients.data(), group_,
                 s_.sums.data());
  for (size_t g = 0; g < group_; ++g) {
    const ResidualQuery& query = s_.residual_queries[g];
    const size_t at = group_ * open.offset + g * open.count + cluster;
    const float base = s_.cluster_logits[at];
    s_.cluster_mass[at] = s_.cluster_doubt[at] = 0;
    if (masses_are_narrow()) s_.cluster_wide_mass[at] = 0;
    const float variance = query.variance * largest * largest;
    s_.row_totals.push_back({.deviation = std::sqrt(variance),
                             .log_doubt = std::log(RowDoubt(variance)),
                             .mean_doubt = RowDoubt(query.variance * mean_square)});
    float* logits = s_.row_logits.data() + group_ * offset + g * rows;
    for (size_t i = 0; i < rows; ++i) {
      const float f = unit * static_cast<float>(factors[i]);
      const float sum = static_cast<float>(s_.sums[g * rows + i]);
      logits[i] = base + f * (query.step * sum + query.offset + 0.5f * query.variance * f);
    }
  }
  read_.bytes_read += rows * (segment.residuals.row_bytes + 1);
}

bool Descent::MakeWantedExact(const DescentThreshold& threshold) {
  std::vector<DescentState::WantedRow>& wanted = s_.wanted;
  const double left = threshold.bytes_max - static_cast<double>(read_.bytes_read);
  const double affordable = std::max(0.0, left / static_cast<double>(key_bytes_));
  const bool all = affordable >= static_cast<double>(wanted.size());
  while (static_cast<double>(wanted.size()) > affordable) {
    s_.row_exact[s_.coded[wanted.back().coded].offset + wanted.back().offset] = 0;
    wanted.pop_back();
  }
  SortWanted();
  for (size_t segment = 0; segment < part_.segments.size(); ++segment) {
    const size_t begin = s_.segment_begin[segment], end = s_.segment_begin[segment + 1];
    if (begin == end) continue;
    ScoreExactly(*part_.segments[segment], {s_.sorted.data() + begin, end - begin});
  }
  read_.exact_tokens += wanted.size();
  read_.bytes_read += wanted.size() * key_bytes_;
  return all;
}

// By segment; in it as they were.
void Descent::SortWanted() {
  s_.segment_begin.assign(part_.segments.size() + 2, 0);
  for (const auto& row : s_.wanted) ++s_.segment_begin[row.segment + 2];
  for (size_t i = 2; i < s_.segment_begin.size(); ++i) {
    s_.segment_begin[i] += s_.segment_begin[i - 1];
  }
  s_.sorted.resize(s_.wanted.size());
  for (const auto& row : s_.wanted) s_.sorted[s_.segment_begin[row.segment + 1]++] = row;
}

void Descent::ScoreExactly(const Segment& segment,
                           std::span<const DescentState::WantedRow> wanted) {
  const size_t packed = PackedQueryFloats(part_.shape.head_dim);
  s_.rows.clear();
  for (const auto& row : wanted) s_.rows.push_back(row.row);
  s_.buffer.resize(wanted.size());
  for (size_t g = 0; g < group_; ++g) {
    GatherScores(s_.packed.data() + g * packed, segment.key_rows(), s_.rows, s_.buffer.data());
    for (size_t i = 0; i < wanted.size(); ++i) {
      const CodedCluster& coded = s_.coded[wanted[i].coded];
      s_.row_logits[group_ * coded.offset + g * coded.rows + wanted[i].offset] = s_.buffer[i];
    }
  }
  for (const DescentState::WantedRow& row : wanted) {
    CodedCluster& coded = s_.coded[row.coded];
    s_.row_exact[coded.offset + row.offset] = kRowExact;
    ++coded.exact;
    if (s_.changed.empty() || s_.changed.back() != row.coded) s_.changed.push_back(row.coded);
  }
}

void Descent::ReadLevel(bool codes) {
  for (size_t i = 0; i < super_count_; ++i) {
    if (s_.super_state[i] == SuperState::kWhole) OpenSuper(i);
  }
  if (!codes) return;
  for (const OpenedSuper& open : s_.opened) {
    for (size_t c = 0; c < open.count; ++c) {
      if (s_.cluster_state[open.offset + c] == ClusterState::kEstimated) CodeCluster(open, c);
    }
  }
}

}  // namespace attic
