// A store for tests: keeps every key and value in memory and answers exactly, in double.
#ifndef ATTIC_TESTS_UNIT_GPU_WORKER_MEMORY_CLIENT_H_
#define ATTIC_TESTS_UNIT_GPU_WORKER_MEMORY_CLIENT_H_

#include <algorithm>
#include <map>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "attention/exact_attention.h"
#include "base/mutex.h"
#include "client/cpp/client.h"

namespace attic::worker {

class MemoryClient : public Client {
 public:
  struct Layer {
    std::vector<std::byte> keys, values;  // (tokens, kv_heads, head_dim)
    int64_t tokens = 0;
    size_t sample_floats = 0;
  };
  struct Session {
    Fingerprint fingerprint;
    std::map<uint32_t, Layer> layers;
  };

  // Counts items answered; indexed answers say that half of the mass was attended exactly, and that
  // they err by an eighth, the last head by a quarter. With `indexed_scale` below 1 indexed answers
  // are wrong by that factor.
  size_t items_answered = 0;
  float indexed_scale = 1.0f;
  SelectionPolicy last_selection;  // of the last indexed item
  int refusals = 0;                // that many calls of Attend fail with UNAVAILABLE
  std::map<std::string, Session> sessions;

  absl::StatusOr<SessionDescription> OpenSession(const OpenSessionRequest& request) override {
    const std::string id = request.session_id.empty() ? NextId() : request.session_id;
    auto [session, added] = sessions.try_emplace(id);
    if (added) {
      session->second.fingerprint = request.fingerprint;
      for (uint32_t layer : request.stored_layers) session->second.layers[layer];
    }
    return Describe(id);
  }
  absl::StatusOr<SessionDescription> DescribeSession(const std::string& id) override {
    return Describe(id);
  }
  absl::Status ExportSession(const std::string&, absl::Time, const SnapshotWrite&) override {
    return absl::UnimplementedError("ExportSession");
  }
  absl::StatusOr<SessionDescription> ImportSession(const ImportOptions&, absl::Time,
                                                   const SnapshotRead&) override {
    return absl::UnimplementedError("ImportSession");
  }
  absl::StatusOr<std::vector<HeadPlan>> PlanSession(const std::string&) override {
    return absl::UnimplementedError("PlanSession");
  }
  absl::StatusOr<std::vector<SessionDescription>> ListSessions() override {
    return absl::UnimplementedError("ListSessions");
  }
  absl::StatusOr<SessionDescription> ForkSession(const std::string& id,
                                                 const ForkOptions& options) override {
    if (Describe(id).watermark < options.position) return absl::OutOfRangeError("position");
    const std::string& new_id = options.new_session_id;
    const std::string chosen = new_id.empty() ? NextId() : new_id;
    if (sessions.contains(chosen)) return absl::AlreadyExistsError("new_session_id");
    sessions[chosen] = sessions[id];
    return Describe(chosen);
  }
  absl::StatusOr<SessionDescription> TruncateSession(const std::string& id,
                                                     int64_t position) override {
    const Fingerprint& f = sessions.at(id).fingerprint;
    const size_t token_bytes = f.kv_heads * f.head_dim * ElementBytes(f.element_type);
    for (auto& [number, layer] : sessions.at(id).layers) {
      layer.tokens = std::min(layer.tokens, position);
      layer.keys.resize(layer.tokens * token_bytes);
      layer.values.resize(layer.tokens * token_bytes);
    }
    return Describe(id);
  }
  absl::StatusOr<SessionDescription> FlushSession(const std::string&, absl::Time) override {
    return absl::UnimplementedError("FlushSession");
  }
  absl::StatusOr<SessionDescription> ExtendPrefix(const std::string&, uint32_t,
                                                  std::span<const PrefixHash>) override {
    return absl::UnimplementedError("ExtendPrefix");
  }
  absl::StatusOr<SessionDescription> RenewLease(const std::string&) override {
    return absl::UnimplementedError("RenewLease");
  }
  absl::StatusOr<SessionDescription> PinSession(const std::string&, bool) override {
    return absl::UnimplementedError("PinSession");
  }
  absl::Status CloseSession(const std::string& id) override {
    return sessions.erase(id) == 1 ? absl::OkStatus() : absl::NotFoundError("session_id");
  }
  absl::StatusOr<std::unique_ptr<AppendStream>> OpenAppendStream() override {
    return std::make_unique<Stream>(*this);
  }
  absl::StatusOr<std::vector<AttendAnswer>> Attend(std::span<const AttendItem> items,
                                                   absl::Time) override {
    if (refusals > 0) {
      --refusals;
      return absl::UnavailableError("refused by the test");
    }
    std::vector<AttendAnswer> answers;
    for (const AttendItem& item : items) answers.push_back(AttendOne(item));
    items_answered += items.size();
    return answers;
  }
  absl::StatusOr<SearchAnswer> Search(const SearchRequest&, absl::Time) override {
    return absl::UnimplementedError("Search");
  }
  absl::StatusOr<StoreStatus> Status() override { return StoreStatus(); }

 private:
  class Stream : public AppendStream {
   public:
    explicit Stream(MemoryClient& client) : client_(client) {}
    absl::Status Append(const AppendBatch& batch) override {
      Layer& layer = client_.sessions.at(batch.session_id).layers.at(batch.layer);
      if (batch.begin_position != layer.tokens) return absl::OutOfRangeError("begin_position");
      layer.keys.insert(layer.keys.end(), batch.keys.begin(), batch.keys.end());
      layer.values.insert(layer.values.end(), batch.values.begin(), batch.values.end());
      layer.tokens += static_cast<int64_t>(batch.count);
      layer.sample_floats += batch.query_sample.size();
      return absl::OkStatus();
    }
    absl::StatusOr<AppendAck> Flush(absl::Time) override { return AppendAck(); }

   private:
    MemoryClient& client_;
  };

  std::string NextId() { return "chosen-" + std::to_string(++ids_); }

  SessionDescription Describe(const std::string& id) {
    SessionDescription description{.session_id = id};
    int64_t watermark = std::numeric_limits<int64_t>::max();
    for (const auto& [number, layer] : sessions.at(id).layers) {
      watermark = std::min(watermark, layer.tokens);
    }
    description.watermark = watermark;
    return description;
  }

  AttendAnswer AttendOne(const AttendItem& item) {
    AttendAnswer answer;
    const Session& session = sessions.at(item.session_id);
    const Fingerprint& f = session.fingerprint;
    const Layer& layer = session.layers.at(item.layer);
    if (layer.tokens < item.min_watermark) {
      answer.status = absl::FailedPreconditionError("min_watermark");
      return answer;
    }
    answer.range = item.range;
    answer.output.resize(f.q_heads * f.head_dim);
    const bool exact = item.mode == AttendMode::kExact;
    answer.coverage.assign(f.q_heads, exact ? 1.0f : 0.5f);
    answer.estimated_error.assign(f.q_heads, exact ? 0.0f : 0.125f);
    answer.estimated_error.back() *= 2;
    if (!exact) last_selection = item.selection;
    for (uint32_t h = 0; h < f.q_heads; ++h) {
      AttendHead(item, f, layer, h, answer);
    }
    const size_t count = static_cast<size_t>(item.range.end - item.range.begin);
    answer.read.bytes_read = count * 2 * f.kv_heads * f.head_dim * ElementBytes(f.element_type);
    return answer;
  }

  void AttendHead(const AttendItem& item, const Fingerprint& f, const Layer& layer, uint32_t head,
                  AttendAnswer& answer) {
    const size_t row_bytes = f.head_dim * ElementBytes(f.element_type);
    std::vector<std::byte> keys, values;
    for (int64_t t = item.range.begin; t < item.range.end; ++t) {
      const size_t offset = (static_cast<size_t>(t) * f.kv_heads + head / f.group()) * row_bytes;
      keys.insert(keys.end(), layer.keys.begin() + offset, layer.keys.begin() + offset + row_bytes);
      values.insert(values.end(), layer.values.begin() + offset,
                    layer.values.begin() + offset + row_bytes);
    }
    const size_t count = static_cast<size_t>(item.range.end - item.range.begin);
    std::vector<double> output(f.head_dim);
    answer.log_sum_exp.push_back(static_cast<float>(
        ReferenceAttention(item.queries.subspan(head * f.head_dim, f.head_dim), f.logit_scale,
                           {keys.data(), f.element_type, count, f.head_dim},
                           {values.data(), f.element_type, count, f.head_dim}, output)));
    const double scale = item.mode == AttendMode::kExact ? 1.0 : indexed_scale;
    for (size_t i = 0; i < output.size(); ++i) {
      answer.output[head * f.head_dim + i] = static_cast<float>(scale * output[i]);
    }
  }

  int ids_ = 0;
};

}  // namespace attic::worker

#endif  // ATTIC_TESTS_UNIT_GPU_WORKER_MEMORY_CLIENT_H_
