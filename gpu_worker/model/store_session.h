// One sequence's session in the store: batches what is appended, knows what is acknowledged, and
// asks for attention over it.
#ifndef ATTIC_GPU_WORKER_MODEL_STORE_SESSION_H_
#define ATTIC_GPU_WORKER_MODEL_STORE_SESSION_H_

#include <cstdint>
#include <memory>
#include <span>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/time/time.h"
#include "api/limits.h"
#include "api/types.h"
#include "client/cpp/client.h"

namespace attic::worker {

struct StoreSessionOptions {
  Limits limits;
  size_t batch_tokens = 8192;  // of one AppendBatch; fewer where a message would be too large
  absl::Duration flush_timeout = absl::Minutes(10);   // the store's builder may have to catch up
  absl::Duration resume_timeout = absl::Seconds(30);  // for a store that went away to come back
};

// The queries of consecutive tokens of one layer. Borrows `queries` for the duration of the call.
struct StoreQuestion {
  size_t stored_layer = 0;  // index of the layer
  size_t count = 0;
  const float* queries = nullptr;  // (count, q_heads, head_dim)
  PositionRange range;             // of the first query; all of which the store must hold
  bool growing = false;  // each query's range ends one position after that of the one before
  AttendMode mode = AttendMode::kIndexed;
  SelectionPolicy selection;
};

// What the store answered for consecutive tokens of one layer.
struct StoreAnswer {
  std::vector<float> output;       // (tokens, q_heads, head_dim)
  std::vector<float> log_sum_exp;  // (tokens, q_heads)
  std::vector<float> coverage;     // (tokens, q_heads)
  float estimated_error = 0;       // of the store's outputs, largest over tokens and query heads
  bool degraded = false;
  uint64_t bytes_read = 0;
};

// Not thread-safe.
class StoreSession {
 public:
  // Opens a new session; ALREADY_EXISTS when the store holds one of this id with tokens in it. With
  // reuse_prefix it may start with tokens: acknowledged() says how many. `client` must outlive the
  // session.
  static absl::StatusOr<std::unique_ptr<StoreSession>> Open(Client& client,
                                                            const OpenSessionRequest& request,
                                                            const StoreSessionOptions& options);

  StoreSession(const StoreSession&) = delete;
  StoreSession& operator=(const StoreSession&) = delete;

  const std::string& id() const { return request_.session_id; }
  // Positions below it are held by the store in every layer.
  int64_t acknowledged() const { return acknowledged_; }
  int64_t reused_tokens() const { return reused_tokens_; }
  // Keys, values and samples sent so far.
  uint64_t appended_bytes() const { return appended_bytes_; }

  // Opens the session, which must be empty, once more under its id: with the hashes of the tokens
  // that will be appended, starting with the longest prefix that the store holds. The same errors
  // as Open; after one the object is of no further use.
  absl::Status Reopen(std::vector<PrefixHash> hashes);

  // Withdraws what was said of blocks that are not appended yet. Flushes first.
  absl::Status WithdrawHashes();

  // Tells the store the hashes of blocks that were appended, from the first_block'th on.
  absl::Status ExtendPrefix(size_t first_block, std::span<const PrefixHash> hashes);

  // Adds the next `count` tokens of the given stored layer, an index, to its batch, and sends the
  // batch when it is full. keys and values: (count, kv_heads, head_dim) in the fingerprint's
  // element type; query_sample: (n, q_heads, head_dim). What is over the limit of samples is left
  // out.
  absl::Status Append(size_t stored_layer, size_t count, std::span<const std::byte> keys,
                      std::span<const std::byte> values, std::span<const float> query_sample);

  // Sends batches of at least `tokens` tokens without waiting for the store.
  absl::Status SendFrom(size_t tokens);

  // Returns when the store holds every position below `position`; sends and waits only if it must.
  absl::Status EnsureHeld(int64_t position);

  // Sends everything and waits for the store.
  absl::Status Flush();

  // Attention of every query over the question's range, in as many calls as the limits ask for.
  absl::Status Attend(const StoreQuestion& question, absl::Time deadline, StoreAnswer& answer);

  // A copy of everything appended, its appended_bytes() from 0, in a new store session. Flushes
  // first.
  absl::StatusOr<std::unique_ptr<StoreSession>> Fork(const std::string& new_session_id);

  // Closes the store's session. The object is of no further use.
  absl::Status Close();

 private:
  struct Batch {
    int64_t begin = 0;
    size_t count = 0;
    std::vector<std::byte> keys, values;
    std::vector<float> query_sample;
  };

  StoreSession(Client& client, OpenSessionRequest request, const StoreSessionOptions& options);
  absl::Status OpenInStore();
  absl::Status Send(size_t stored_layer);
  // After the append stream failed: OK once the store, restarted perhaps, holds all that was sent,
  // so that a new stream may follow; else `failure`.
  absl::Status Resume(const absl::Status& failure);
  bool HoldsWhatWasSent(const SessionDescription& description) const;
  // Adds the answers to `count` queries from the first'th.
  absl::Status AttendBatch(const StoreQuestion& question, size_t first, size_t count,
                           absl::Time deadline, StoreAnswer& answer);

  Client& client_;
  OpenSessionRequest request_;  // with the id that the store chose
  const Fingerprint& fingerprint_ = request_.fingerprint;
  const std::vector<uint32_t>& layers_ = request_.stored_layers;
  const StoreSessionOptions options_;
  const size_t batch_tokens_;
  std::vector<Batch> batches_;  // per stored layer
  std::unique_ptr<AppendStream> stream_;
  int64_t acknowledged_ = 0;
  int64_t reused_tokens_ = 0;
  uint64_t appended_bytes_ = 0;
};

}  // namespace attic::worker

#endif  // ATTIC_GPU_WORKER_MODEL_STORE_SESSION_H_
