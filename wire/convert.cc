#include "wire/convert.h"

#include <cstring>
#include <limits>
#include <utility>

#include "absl/strings/str_cat.h"
#include "base/status_macros.h"

namespace attic::wire {
namespace {

// In a request end = 0 stands for "up to the watermark".
constexpr int64_t kUpToWatermark = std::numeric_limits<int64_t>::max();

template <typename T>
std::string BytesOf(const std::vector<T>& values) {
  return std::string(reinterpret_cast<const char*>(values.data()), values.size() * sizeof(T));
}

std::span<const std::byte> SpanOf(const std::string& bytes) {
  return {reinterpret_cast<const std::byte*>(bytes.data()), bytes.size()};
}

v1::ElementType ToWire(ElementType type) { return static_cast<v1::ElementType>(type); }

absl::StatusOr<ElementType> FromWire(v1::ElementType type, const char* field) {
  switch (type) {
    case v1::ELEMENT_TYPE_FLOAT32:
      return ElementType::kFloat32;
    case v1::ELEMENT_TYPE_BFLOAT16:
      return ElementType::kBFloat16;
    case v1::ELEMENT_TYPE_FLOAT16:
      return ElementType::kFloat16;
    default:
      return absl::InvalidArgumentError(
          absl::StrCat(field, ": unknown element type ", static_cast<int>(type)));
  }
}

v1::AttendMode ToWire(AttendMode mode) { return static_cast<v1::AttendMode>(mode); }

absl::StatusOr<AttendMode> FromWire(v1::AttendMode mode) {
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

v1::Error ToWire(const absl::Status& status) {
  v1::Error error;
  error.set_code(static_cast<int>(status.code()));
  error.set_message(std::string(status.message()));
  return error;
}

absl::Status FromWire(const v1::Error& error) {
  const bool known = error.code() >= 0 && error.code() <= 16;
  const auto code =
      known ? static_cast<absl::StatusCode>(error.code()) : absl::StatusCode::kUnknown;
  return absl::Status(code, error.message());
}

v1::Fingerprint ToWire(const Fingerprint& fingerprint) {
  v1::Fingerprint out;
  out.set_model_id(fingerprint.model_id);
  out.set_revision(fingerprint.revision);
  out.set_layers(fingerprint.layers);
  out.set_q_heads(fingerprint.q_heads);
  out.set_kv_heads(fingerprint.kv_heads);
  out.set_head_dim(fingerprint.head_dim);
  out.set_value_dim(fingerprint.value_dim);
  out.set_element_type(ToWire(fingerprint.element_type));
  out.set_logit_scale(fingerprint.logit_scale);
  out.set_position_encoding(fingerprint.position_encoding);
  return out;
}

absl::StatusOr<Fingerprint> FromWire(const v1::Fingerprint& fingerprint) {
  Fingerprint out;
  out.model_id = fingerprint.model_id();
  out.revision = fingerprint.revision();
  out.layers = fingerprint.layers();
  out.q_heads = fingerprint.q_heads();
  out.kv_heads = fingerprint.kv_heads();
  out.head_dim = fingerprint.head_dim();
  out.value_dim = fingerprint.value_dim();
  ATTIC_ASSIGN_OR_RETURN(out.element_type,
                         FromWire(fingerprint.element_type(), "fingerprint.element_type"));
  out.logit_scale = fingerprint.logit_scale();
  out.position_encoding = fingerprint.position_encoding();
  return out;
}

v1::PositionRange ToWire(const PositionRange& range) {
  v1::PositionRange out;
  out.set_begin(range.begin);
  out.set_end(range.end == kUpToWatermark ? 0 : range.end);
  // [0, 0) would read as "everything"; [1, 1) is the same empty set.
  if (range.begin == 0 && range.end == 0) {
    out.set_begin(1);
    out.set_end(1);
  }
  return out;
}

PositionRange FromWire(const v1::PositionRange& range) {
  return {.begin = range.begin(), .end = range.end() == 0 ? kUpToWatermark : range.end()};
}

v1::ReadStatistics ToWire(const ReadStatistics& read) {
  v1::ReadStatistics out;
  out.set_tokens(read.tokens);
  out.set_exact_tokens(read.exact_tokens);
  out.set_estimated_clusters(read.estimated_clusters);
  out.set_estimated_super_clusters(read.estimated_super_clusters);
  out.set_graph_visits(read.graph_visits);
  out.set_bytes_read(read.bytes_read);
  return out;
}

ReadStatistics FromWire(const v1::ReadStatistics& read) {
  ReadStatistics out;
  out.tokens = read.tokens();
  out.exact_tokens = read.exact_tokens();
  out.estimated_clusters = read.estimated_clusters();
  out.estimated_super_clusters = read.estimated_super_clusters();
  out.graph_visits = read.graph_visits();
  out.bytes_read = read.bytes_read();
  return out;
}

v1::OpenRequest ToWire(const OpenSessionRequest& request) {
  v1::OpenRequest out;
  out.set_session_id(request.session_id);
  *out.mutable_fingerprint() = ToWire(request.fingerprint);
  out.mutable_stored_layers()->Assign(request.stored_layers.begin(), request.stored_layers.end());
  return out;
}

absl::StatusOr<OpenSessionRequest> FromWire(const v1::OpenRequest& request) {
  OpenSessionRequest out;
  out.session_id = request.session_id();
  ATTIC_ASSIGN_OR_RETURN(out.fingerprint, FromWire(request.fingerprint()));
  out.stored_layers.assign(request.stored_layers().begin(), request.stored_layers().end());
  return out;
}

v1::SessionDescription ToWire(const SessionDescription& description) {
  v1::SessionDescription out;
  out.set_session_id(description.session_id);
  *out.mutable_fingerprint() = ToWire(description.fingerprint);
  for (const LayerDescription& layer : description.layers) {
    v1::LayerDescription* added = out.add_layers();
    added->set_layer(layer.layer);
    added->set_watermark(layer.watermark);
    added->set_indexed_tokens(layer.indexed_tokens);
    added->set_tail_tokens(layer.tail_tokens);
  }
  out.set_watermark(description.watermark);
  out.set_memory_bytes(description.memory_bytes);
  return out;
}

absl::StatusOr<SessionDescription> FromWire(const v1::SessionDescription& description) {
  SessionDescription out;
  out.session_id = description.session_id();
  ATTIC_ASSIGN_OR_RETURN(out.fingerprint, FromWire(description.fingerprint()));
  for (const v1::LayerDescription& layer : description.layers()) {
    out.layers.push_back({.layer = layer.layer(),
                          .watermark = layer.watermark(),
                          .indexed_tokens = layer.indexed_tokens(),
                          .tail_tokens = layer.tail_tokens()});
  }
  out.watermark = description.watermark();
  out.memory_bytes = description.memory_bytes();
  return out;
}

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
  out.set_mode(ToWire(item.mode));
  out.set_queries(item.queries.data(), item.queries.size_bytes());
  out.set_query_type(v1::ELEMENT_TYPE_FLOAT32);
  return out;
}

absl::StatusOr<AttendItem> FromWire(const v1::AttendItem& item, uint32_t layer,
                                    std::vector<float>& queries) {
  AttendItem out;
  ATTIC_ASSIGN_OR_RETURN(out.mode, FromWire(item.mode()));
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
  const size_t heads = out.log_sum_exp.size();
  if (out.coverage.size() != heads) {
    return absl::InvalidArgumentError("coverage: not as many as log_sum_exp");
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
  out.set_mode(ToWire(request.mode));
  out.set_k(request.k);
  out.set_with_vectors(request.with_vectors);
  out.set_queries(request.queries.data(), request.queries.size_bytes());
  out.set_query_type(v1::ELEMENT_TYPE_FLOAT32);
  return out;
}

absl::StatusOr<SearchRequest> FromWire(const v1::SearchRequest& request,
                                       std::vector<float>& queries) {
  SearchRequest out;
  ATTIC_ASSIGN_OR_RETURN(out.mode, FromWire(request.mode()));
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

v1::StoreStatus ToWire(const StoreStatus& status) {
  v1::StoreStatus out;
  out.set_version(status.version);
  out.set_boot_id(status.boot_id);
  out.set_epoch(status.epoch);
  out.set_sessions(status.sessions);
  out.set_tokens(status.tokens);
  out.set_pending_segments(status.pending_segments);
  out.set_threads(status.threads);
  out.set_uptime_seconds(status.uptime_seconds);
  out.set_vector_target(status.vector_target);
  v1::MemoryUse* memory = out.mutable_memory();
  memory->set_vectors_bytes(status.memory.vectors_bytes);
  memory->set_tail_bytes(status.memory.tail_bytes);
  memory->set_summaries_bytes(status.memory.summaries_bytes);
  memory->set_codes_bytes(status.memory.codes_bytes);
  memory->set_graph_bytes(status.memory.graph_bytes);
  return out;
}

StoreStatus FromWire(const v1::StoreStatus& status) {
  StoreStatus out;
  out.version = status.version();
  out.boot_id = status.boot_id();
  out.epoch = status.epoch();
  out.sessions = status.sessions();
  out.tokens = status.tokens();
  out.pending_segments = status.pending_segments();
  out.threads = status.threads();
  out.uptime_seconds = status.uptime_seconds();
  out.vector_target = status.vector_target();
  out.memory = {.vectors_bytes = status.memory().vectors_bytes(),
                .tail_bytes = status.memory().tail_bytes(),
                .summaries_bytes = status.memory().summaries_bytes(),
                .codes_bytes = status.memory().codes_bytes(),
                .graph_bytes = status.memory().graph_bytes()};
  return out;
}

}  // namespace attic::wire
