#include "gpu_worker/model/store_session.h"

#include <algorithm>
#include <utility>

#include "absl/strings/str_cat.h"
#include "absl/time/clock.h"
#include "base/check.h"
#include "base/status_macros.h"

namespace attic::worker {
namespace {

constexpr absl::Duration kResumePollInterval = absl::Milliseconds(50);

// Keys and values of one token in one layer.
size_t TokenBytes(const Fingerprint& fingerprint) {
  return size_t{fingerprint.kv_heads} * (fingerprint.head_dim + fingerprint.value_dim) *
         ElementBytes(fingerprint.element_type);
}

// Half of the largest message leaves room for the query sample.
size_t BatchTokens(const Fingerprint& fingerprint, const StoreSessionOptions& options) {
  const size_t fit = options.limits.message_bytes_max / 2 / TokenBytes(fingerprint);
  return std::max<size_t>(1,
                          std::min({options.batch_tokens, options.limits.append_tokens_max, fit}));
}

}  // namespace

StoreSession::StoreSession(Client& client, OpenSessionRequest request,
                           const StoreSessionOptions& options)
    : client_(client),
      request_(std::move(request)),
      options_(options),
      batch_tokens_(BatchTokens(fingerprint_, options)),
      batches_(layers_.size()) {}

absl::StatusOr<std::unique_ptr<StoreSession>> StoreSession::Open(
    Client& client, const OpenSessionRequest& request, const StoreSessionOptions& options) {
  std::unique_ptr<StoreSession> session(new StoreSession(client, request, options));
  ATTIC_RETURN_IF_ERROR(session->OpenInStore());
  return session;
}

absl::Status StoreSession::OpenInStore() {
  ATTIC_ASSIGN_OR_RETURN(const SessionDescription description, client_.OpenSession(request_));
  if (description.watermark > 0 && !description.created) {
    return absl::AlreadyExistsError(absl::StrCat("session_id: the store already holds ",
                                                 description.watermark, " tokens of session ",
                                                 description.session_id));
  }
  request_.session_id = description.session_id;
  const int64_t reused = description.reused_tokens;
  const auto known = static_cast<int64_t>(request_.prefix_hashes.size() * kPrefixBlockTokens);
  if (reused < 0 || reused > known || reused != description.watermark) {
    return absl::InternalError(absl::StrCat("the store says that ", reused,
                                            " tokens of a new session are a prefix's, of ", known));
  }
  reused_tokens_ = acknowledged_ = reused;
  for (Batch& batch : batches_) batch.begin = reused;
  return absl::OkStatus();
}

absl::Status StoreSession::Reopen(std::vector<PrefixHash> hashes) {
  for (const Batch& batch : batches_) ATTIC_CHECK(batch.begin == 0 && batch.count == 0);
  ATTIC_RETURN_IF_ERROR(client_.CloseSession(id()));
  request_.prefix_hashes = std::move(hashes);
  request_.reuse_prefix = true;
  return OpenInStore();
}

absl::Status StoreSession::WithdrawHashes() {
  ATTIC_RETURN_IF_ERROR(Flush());
  return client_.TruncateSession(id(), acknowledged_).status();
}

absl::Status StoreSession::ExtendPrefix(size_t first_block, std::span<const PrefixHash> hashes) {
  return client_.ExtendPrefix(id(), static_cast<uint32_t>(first_block), hashes).status();
}

absl::Status StoreSession::Append(size_t stored_layer, size_t count,
                                  std::span<const std::byte> keys,
                                  std::span<const std::byte> values,
                                  std::span<const float> query_sample) {
  Batch& batch = batches_[stored_layer];
  const size_t key_bytes = keys.size() / count;
  const size_t value_bytes = values.size() / count;
  const size_t samples_floats_max = options_.limits.query_sample_max / fingerprint_.q_heads *
                                    fingerprint_.q_heads * fingerprint_.head_dim;
  const size_t room = samples_floats_max - batch.query_sample.size();
  const auto sample = query_sample.first(std::min(query_sample.size(), room));
  batch.query_sample.insert(batch.query_sample.end(), sample.begin(), sample.end());
  for (size_t done = 0; done < count;) {
    const size_t take = std::min(count - done, batch_tokens_ - batch.count);
    const auto some_keys = keys.subspan(done * key_bytes, take * key_bytes);
    const auto some_values = values.subspan(done * value_bytes, take * value_bytes);
    batch.keys.insert(batch.keys.end(), some_keys.begin(), some_keys.end());
    batch.values.insert(batch.values.end(), some_values.begin(), some_values.end());
    batch.count += take;
    done += take;
    if (batch.count == batch_tokens_) ATTIC_RETURN_IF_ERROR(Send(stored_layer));
  }
  return absl::OkStatus();
}

absl::Status StoreSession::Send(size_t stored_layer) {
  Batch& batch = batches_[stored_layer];
  if (stream_ == nullptr) {
    ATTIC_ASSIGN_OR_RETURN(stream_, client_.OpenAppendStream());
  }
  const AppendBatch message{.session_id = id(),
                            .layer = layers_[stored_layer],
                            .begin_position = batch.begin,
                            .count = batch.count,
                            .keys = batch.keys,
                            .values = batch.values,
                            .query_sample = batch.query_sample};
  absl::Status sent = stream_->Append(message);
  if (absl::IsUnavailable(sent)) {
    ATTIC_RETURN_IF_ERROR(Resume(sent));
    ATTIC_ASSIGN_OR_RETURN(stream_, client_.OpenAppendStream());
    sent = stream_->Append(message);
  }
  ATTIC_RETURN_IF_ERROR(sent);
  appended_bytes_ +=
      batch.keys.size() + batch.values.size() + batch.query_sample.size() * sizeof(float);
  batch.begin += static_cast<int64_t>(batch.count);
  batch.count = 0;
  batch.keys.clear();
  batch.values.clear();
  batch.query_sample.clear();
  return absl::OkStatus();
}

absl::Status StoreSession::SendFrom(size_t tokens) {
  for (size_t stored_layer = 0; stored_layer < batches_.size(); ++stored_layer) {
    if (batches_[stored_layer].count > 0 && batches_[stored_layer].count >= tokens) {
      ATTIC_RETURN_IF_ERROR(Send(stored_layer));
    }
  }
  return absl::OkStatus();
}

absl::Status StoreSession::EnsureHeld(int64_t position) {
  if (acknowledged_ >= position) return absl::OkStatus();
  return Flush();
}

absl::Status StoreSession::Flush() {
  ATTIC_RETURN_IF_ERROR(SendFrom(0));
  if (stream_ == nullptr) return absl::OkStatus();
  const absl::Status flushed = stream_->Flush(absl::Now() + options_.flush_timeout).status();
  if (absl::IsUnavailable(flushed)) {
    ATTIC_RETURN_IF_ERROR(Resume(flushed));
  } else {
    ATTIC_RETURN_IF_ERROR(flushed);
  }
  // Everything sent is acknowledged, so each layer holds what lies before its next batch.
  int64_t held = batches_.front().begin;
  for (const Batch& batch : batches_) held = std::min(held, batch.begin);
  acknowledged_ = held;
  return absl::OkStatus();
}

absl::Status StoreSession::Resume(const absl::Status& failure) {
  stream_.reset();
  const absl::Time deadline = absl::Now() + options_.resume_timeout;
  for (;;) {
    const absl::StatusOr<SessionDescription> held = client_.DescribeSession(id());
    if (held.ok() && HoldsWhatWasSent(*held)) return absl::OkStatus();
    // A store that starts reads sessions piece by piece.
    const bool may_come = held.ok() || absl::IsUnavailable(held.status());
    if (!may_come || absl::Now() >= deadline) return failure;
    absl::SleepFor(kResumePollInterval);
  }
}

bool StoreSession::HoldsWhatWasSent(const SessionDescription& description) const {
  for (size_t stored_layer = 0; stored_layer < batches_.size(); ++stored_layer) {
    const auto layer = std::find_if(
        description.layers.begin(), description.layers.end(),
        [&](const LayerDescription& held) { return held.layer == layers_[stored_layer]; });
    if (layer == description.layers.end() || layer->watermark < batches_[stored_layer].begin)
      return false;
  }
  return true;
}

absl::Status StoreSession::Attend(const StoreQuestion& question, absl::Time deadline,
                                  StoreAnswer& answer) {
  answer = StoreAnswer();
  const size_t batch_max = options_.limits.attend_items_max;
  for (size_t first = 0; first < question.count; first += batch_max) {
    const size_t count = std::min(batch_max, question.count - first);
    ATTIC_RETURN_IF_ERROR(AttendBatch(question, first, count, deadline, answer));
  }
  return absl::OkStatus();
}

absl::Status StoreSession::AttendBatch(const StoreQuestion& question, size_t first, size_t count,
                                       absl::Time deadline, StoreAnswer& answer) {
  const size_t query_floats = size_t{fingerprint_.q_heads} * fingerprint_.head_dim;
  std::vector<AttendItem> items(count);
  for (size_t i = 0; i < count; ++i) {
    PositionRange range = question.range;
    if (question.growing) range.end += static_cast<int64_t>(first + i);
    items[i] = {.session_id = id(),
                .layer = layers_[question.stored_layer],
                .range = range,
                .min_watermark = range.end,
                .mode = question.mode,
                .selection = question.selection,
                .queries = {question.queries + (first + i) * query_floats, query_floats}};
  }
  ATTIC_ASSIGN_OR_RETURN(const std::vector<AttendAnswer> answers, client_.Attend(items, deadline));
  if (answers.size() != count) {
    return absl::InternalError(
        absl::StrCat("the store answered ", answers.size(), " of ", count, " items"));
  }
  for (size_t i = 0; i < count; ++i) {
    const AttendAnswer& one = answers[i];
    ATTIC_RETURN_IF_ERROR(one.status);
    if (one.output.size() != size_t{fingerprint_.q_heads} * fingerprint_.value_dim ||
        one.log_sum_exp.size() != fingerprint_.q_heads ||
        one.coverage.size() != fingerprint_.q_heads || one.range != items[i].range) {
      return absl::InternalError("the store's answer has the wrong shape or range");
    }
    answer.output.insert(answer.output.end(), one.output.begin(), one.output.end());
    answer.log_sum_exp.insert(answer.log_sum_exp.end(), one.log_sum_exp.begin(),
                              one.log_sum_exp.end());
    answer.coverage.insert(answer.coverage.end(), one.coverage.begin(), one.coverage.end());
    for (const float error : one.estimated_error) {
      answer.estimated_error = std::max(answer.estimated_error, error);
    }
    answer.degraded |= one.degraded;
    answer.bytes_read += one.read.bytes_read;
  }
  return absl::OkStatus();
}

absl::StatusOr<std::unique_ptr<StoreSession>> StoreSession::Fork(
    const std::string& new_session_id) {
  ATTIC_RETURN_IF_ERROR(Flush());
  ATTIC_ASSIGN_OR_RETURN(
      const SessionDescription description,
      client_.ForkSession(id(), {.position = acknowledged_, .new_session_id = new_session_id}));
  OpenSessionRequest request = request_;
  request.session_id = description.session_id;
  std::unique_ptr<StoreSession> fork(new StoreSession(client_, std::move(request), options_));
  for (Batch& batch : fork->batches_) batch.begin = acknowledged_;
  fork->acknowledged_ = acknowledged_;
  return fork;
}

absl::Status StoreSession::Close() {
  stream_.reset();
  return client_.CloseSession(id());
}

}  // namespace attic::worker
