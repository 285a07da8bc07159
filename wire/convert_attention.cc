#include <cstring>
#include <utility>

#include "absl/strings/str_cat.h"
#include "base/status_macros.h"
#include "wire/convert.h"
#include "wire/element_type.h"

namespace attic::wire {
namespace {

template <typename T>
std::string BytesOf(const std::vector<T>& values) {
  return std::string(reinterpret_cast<const char*>(values.data()), values.size() * sizeof(T));
}

std::span<const std::byte> SpanOf(const std::string& bytes) {
  return {reinterpret_cast<const std::byte*>(bytes.data()), bytes.size()};
}

v1::AttendMode ModeToWire(AttendMode mode) { return static_cast<v1::AttendMode>(mode); }

absl::StatusOr<AttendMode> ModeFromWire(v1::AttendMode mode) {
  switch (mode) {
    case v1::ATTEND_MODE_UNSPECIFIED:
    case v1::ATTEND_MODE_INDEXED:
      return AttendMode::kIndexed;
    case v1::ATTEND_MODE_EXACT:
      return AttendMode::kExact;
    default:
      return absl::InvalidArgumentError(
          absl::StrCat("mode: unknown mode ", static_cast<int>(mode)));
  }
}

absl::Status CopyFloats(const std::string& bytes, const char* field, std::vector<float>& out) {
  if (bytes.size() % sizeof(float) != 0) {
    return absl::InvalidArgumentError(
        absl::StrCat(field, ": ", bytes.size(), " bytes are no whole number of float32"));
  }
  out.resize(bytes.size() / sizeof(float));
  if (!bytes.empty()) std::memcpy(out.data(), bytes.data(), bytes.size());
  return absl::OkStatus();
}

// Queries of a request, widened to float32.
absl::Status WidenQueries(const std::string& bytes, v1::ElementType wire_type,
                          std::vector<float>& out) {
  if (wire_type == v1::ELEMENT_TYPE_UNSPECIFIED) wire_type = v1::ELEMENT_TYPE_FLOAT32;
  ATTIC_ASSIGN_OR_RETURN(const ElementType type, FromWire(wire_type, "query_type"));
  if (type == ElementType::kFloat32) return CopyFloats(bytes, "queries", out);
  if (bytes.size() % ElementBytes(type) != 0) {
    return absl::InvalidArgumentError(absl::StrCat(
        "queries: ", bytes.size(), " bytes are no whole number of ", ElementTypeName(type)));
  }
  out.resize(bytes.size() / ElementBytes(type));
  ToFloat32(SpanOf(bytes).data(), type, out);
  return absl::OkStatus();
}

}  // namespace

v1::AppendRequest ToWire(const AppendBatch& batch) {
  v1::AppendRequest out;
  out.set_session_id(batch.session_id);
  out.set_layer(batch.layer);
  out.set_begin_position(batch.begin_position);
  out.set_count(static_cast<uint32_t>(batch.count));
  out.set_keys(batch.keys.data(), batch.keys.size());
  out.set_values(batch.values.data(), batch.values.size());
  out.set_query_sample(batch.query_sample.data(), batch.query_sample.size_bytes());
  return out;
}

absl::StatusOr<AppendBatch> FromWire(const v1::AppendRequest& request,
                                     std::vector<float>& query_sample) {
  ATTIC_RETURN_IF_ERROR(CopyFloats(request.query_sample(), "query_sample", query_sample));
  AppendBatch out;
  out.session_id = request.session_id();
  out.layer = request.layer();
  out.begin_position = request.begin_position();
  out.count = request.count();
  out.keys = SpanOf(request.keys());
  out.values = SpanOf(request.values());
  out.query_sample = query_sample;
  return out;
}

v1::AttendItem ToWire(const AttendItem& item) {
  v1::AttendItem out;
  out.set_session_id(item.session_id);
  *out.mutable_range() = ToWire(item.range);
  out.set_min_watermark(item.min_watermark);
  out.set_mode(ModeToWire(item.mode));
  *out.mutable_selection() = ToWire(item.selection);
  out.set_queries(item.queries.data(), item.queries.size_bytes());
  out.set_query_type(v1::ELEMENT_TYPE_FLOAT32);
  return out;
}

absl::StatusOr<AttendItem> FromWire(const v1::AttendItem& item, uint32_t layer,
                                    std::vector<float>& queries) {
  AttendItem out;
  ATTIC_ASSIGN_OR_RETURN(out.mode, ModeFromWire(item.mode()));
  ATTIC_ASSIGN_OR_RETURN(out.selection, FromWire(item.selection()));
  ATTIC_RETURN_IF_ERROR(WidenQueries(item.queries(), item.query_type(), queries));
  out.session_id = item.session_id();
  out.layer = layer;
  out.range = FromWire(item.range());
  out.min_watermark = item.min_watermark();
  out.queries = queries;
  return out;
}

v1::AttendItemResponse ToWire(const AttendAnswer& answer) {
  v1::AttendItemResponse out;
  if (!answer.status.ok()) {
    *out.mutable_error() = ToWire(answer.status);
    return out;
  }
  out.set_output(BytesOf(answer.output));
  out.mutable_log_sum_exp()->Assign(answer.log_sum_exp.begin(), answer.log_sum_exp.end());
  out.mutable_coverage()->Assign(answer.coverage.begin(), answer.coverage.end());
  out.mutable_estimated_error()->Assign(answer.estimated_error.begin(),
                                        answer.estimated_error.end());
  out.mutable_range()->set_begin(answer.range.begin);
  out.mutable_range()->set_end(answer.range.end);
  out.set_degraded(answer.degraded);
  *out.mutable_read() = ToWire(answer.read);
  return out;
}

absl::StatusOr<AttendAnswer> FromWire(const v1::AttendItemResponse& response) {
  AttendAnswer out;
  out.status = FromWire(response.error());
  if (!out.status.ok()) return out;
  ATTIC_RETURN_IF_ERROR(CopyFloats(response.output(), "output", out.output));
  out.log_sum_exp.assign(response.log_sum_exp().begin(), response.log_sum_exp().end());
  out.coverage.assign(response.coverage().begin(), response.coverage().end());
  out.estimated_error.assign(response.estimated_error().begin(), response.estimated_error().end());
  const size_t heads = out.log_sum_exp.size();
  if (out.coverage.size() != heads) {
    return absl::InvalidArgumentError("coverage: not as many as log_sum_exp");
  }
  if (out.estimated_error.size() != heads) {
    return absl::InvalidArgumentError("estimated_error: not as many as log_sum_exp");
  }
  if (heads == 0 ? !out.output.empty() : out.output.size() % heads != 0) {
    return absl::InvalidArgumentError("output: no whole number of values a query head");
  }
  out.range = {.begin = response.range().begin(), .end = response.range().end()};
  out.degraded = response.degraded();
  out.read = FromWire(response.read());
  return out;
}

v1::SearchRequest ToWire(const SearchRequest& request) {
  v1::SearchRequest out;
  out.set_session_id(request.session_id);
  out.set_layer(request.layer);
  *out.mutable_range() = ToWire(request.range);
  out.set_mode(ModeToWire(request.mode));
  *out.mutable_selection() = ToWire(request.selection);
  out.set_k(request.k);
  out.set_with_vectors(request.with_vectors);
  out.set_queries(request.queries.data(), request.queries.size_bytes());
  out.set_query_type(v1::ELEMENT_TYPE_FLOAT32);
  return out;
}

absl::StatusOr<SearchRequest> FromWire(const v1::SearchRequest& request,
                                       std::vector<float>& queries) {
  SearchRequest out;
  ATTIC_ASSIGN_OR_RETURN(out.mode, ModeFromWire(request.mode()));
  ATTIC_ASSIGN_OR_RETURN(out.selection, FromWire(request.selection()));
  ATTIC_RETURN_IF_ERROR(WidenQueries(request.queries(), request.query_type(), queries));
  out.session_id = request.session_id();
  out.layer = request.layer();
  out.range = FromWire(request.range());
  out.k = request.k();
  out.with_vectors = request.with_vectors();
  out.queries = queries;
  return out;
}

v1::SearchResponse ToWire(const SearchAnswer& answer) {
  v1::SearchResponse out;
  for (size_t head = 0; head < answer.hits.size(); ++head) {
    v1::SearchHits* hits = out.add_heads();
    for (const SearchHit& hit : answer.hits[head]) {
      hits->add_positions(hit.position);
      hits->add_scores(hit.score);
    }
    if (head < answer.keys.size()) hits->set_keys(BytesOf(answer.keys[head]));
    if (head < answer.values.size()) hits->set_values(BytesOf(answer.values[head]));
  }
  *out.mutable_read() = ToWire(answer.read);
  return out;
}

absl::StatusOr<SearchAnswer> FromWire(const v1::SearchResponse& response) {
  SearchAnswer out;
  bool with_vectors = false;
  for (const v1::SearchHits& head : response.heads()) {
    if (head.positions_size() != head.scores_size()) {
      return absl::InvalidArgumentError("scores: not as many as positions");
    }
    std::vector<SearchHit>& hits = out.hits.emplace_back();
    for (int i = 0; i < head.positions_size(); ++i) {
      hits.push_back({.position = head.positions(i), .score = head.scores(i)});
    }
    const auto keys = SpanOf(head.keys());
    const auto values = SpanOf(head.values());
    out.keys.emplace_back(keys.begin(), keys.end());
    out.values.emplace_back(values.begin(), values.end());
    with_vectors = with_vectors || !keys.empty();
  }
  if (!with_vectors) {
    out.keys.clear();
    out.values.clear();
  }
  out.read = FromWire(response.read());
  return out;
}

}  // namespace attic::wire
