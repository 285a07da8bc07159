// The worker's service (proto/attic/v1/worker.proto) in plain types.
#ifndef ATTIC_CLIENT_CLI_DEMO_WORKER_CLIENT_H_
#define ATTIC_CLIENT_CLI_DEMO_WORKER_CLIENT_H_

#include <cstdint>
#include <functional>
#include <memory>
#include <string>
#include <string_view>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/time/time.h"
#include "api/types.h"

namespace attic::cli {

struct WorkerModel {
  Fingerprint fingerprint;
  uint64_t parameters = 0;
  uint32_t vocab_size = 0;
  uint32_t full_attention_layers = 0;
  uint32_t sink_tokens = 0;
  uint32_t window_tokens = 0;
  std::string backend;
};

// One generated token; the fields of v1::DecodeToken.
struct DecodedToken {
  uint32_t token_id = 0;
  uint32_t exact_token_id = 0;
  double output_error = 0;
  double coverage = 0;
  double estimated_error = 0;
  double token_ms = 0;
  double attend_ms = 0;
  double exact_attend_ms = 0;
  uint64_t bytes_read = 0;
  uint64_t exact_bytes_read = 0;
};

// The last v1::PrefillProgress.
struct PrefillSummary {
  int64_t reused_tokens = 0;  // of the text, held by the store already
  uint64_t appended_bytes = 0;
};

// The fields of v1::DecodeRequest.
struct DecodeCall {
  std::string session_id;
  std::string prompt;
  uint32_t max_tokens = 1;
  AttendMode mode = AttendMode::kIndexed;
  SelectionPolicy selection;
  bool compare_exact = false;
};

// Thread-safe. Every call ends within kWorkerCallTimeout, Prefill within kPrefillTimeout. Text is
// sent one token a byte.
class WorkerClient {
 public:
  static absl::StatusOr<std::unique_ptr<WorkerClient>> Connect(const std::string& address,
                                                               absl::Duration timeout);
  virtual ~WorkerClient() = default;

  virtual absl::StatusOr<WorkerModel> GetModel() = 0;
  virtual absl::Status Open(const std::string& session_id) = 0;
  // on_progress(tokens read, tokens held by the store) is called in between.
  virtual absl::StatusOr<PrefillSummary> Prefill(
      const std::string& session_id, std::string_view text,
      const std::function<void(int64_t, int64_t)>& on_progress) = 0;
  virtual absl::Status Fork(const std::string& session_id, const std::string& new_session_id) = 0;
  virtual absl::StatusOr<std::vector<DecodedToken>> Decode(const DecodeCall& call) = 0;
  virtual absl::Status Close(const std::string& session_id) = 0;
};

inline constexpr absl::Duration kWorkerCallTimeout = absl::Minutes(5);
inline constexpr absl::Duration kPrefillTimeout = absl::Hours(6);

}  // namespace attic::cli

#endif  // ATTIC_CLIENT_CLI_DEMO_WORKER_CLIENT_H_
