// Attention per second over sessions of a store or a cluster, and what it costs the client. Fills
// the sessions first. Prints one line of JSON.
#include <sys/resource.h>

#include <CLI/CLI.hpp>
#include <algorithm>
#include <atomic>
#include <cmath>
#include <cstdio>
#include <memory>
#include <nlohmann/json.hpp>
#include <random>
#include <span>
#include <string>
#include <thread>
#include <vector>

#include "absl/strings/str_cat.h"
#include "absl/time/clock.h"
#include "base/mutex.h"
#include "base/status_macros.h"
#include "client/cpp/client.h"

namespace attic {
namespace {

struct Flags {
  std::string server;
  std::string name = "bench";  // sessions are called so, with a number behind
  int sessions = 4;
  int64_t tokens = 32768;
  uint32_t layers = 2;
  uint32_t q_heads = 32;
  uint32_t kv_heads = 8;
  uint32_t head_dim = 128;
  uint32_t replicas = 1;
  int batch = 4;  // sequences of one call
  int threads = 2;
  double seconds = 5;
};

constexpr size_t kAppendTokens = 1024;
constexpr absl::Duration kTimeout = absl::Minutes(10);

double CpuSeconds() {
  rusage usage;
  getrusage(RUSAGE_SELF, &usage);
  const auto seconds = [](const timeval& t) {
    return static_cast<double>(t.tv_sec) + static_cast<double>(t.tv_usec) * 1e-6;
  };
  return seconds(usage.ru_utime) + seconds(usage.ru_stime);
}

class Bench {
 public:
  explicit Bench(const Flags& flags) : flags_(flags) {}

  absl::StatusOr<nlohmann::json> Run() {
    ATTIC_ASSIGN_OR_RETURN(client_, ConnectClient({.address = flags_.server}));
    for (int s = 0; s < flags_.sessions; ++s) ATTIC_RETURN_IF_ERROR(Fill(Id(s)));
    ATTIC_RETURN_IF_ERROR(WaitForIndex());
    return Measure();
  }

 private:
  std::string Id(int session) const { return absl::StrCat(flags_.name, "-", session); }

  absl::Status Fill(const std::string& id);
  absl::Status WaitForIndex();
  absl::StatusOr<nlohmann::json> Measure();
  absl::Status Ask(std::mt19937_64& random);

  const Flags flags_;
  std::unique_ptr<Client> client_;
  Mutex mutex_;
  std::vector<double> milliseconds_ ATTIC_GUARDED_BY(mutex_);
  absl::Status error_ ATTIC_GUARDED_BY(mutex_);
};

absl::Status Bench::Fill(const std::string& id) {
  OpenSessionRequest request{
      .session_id = id,
      .fingerprint = {.model_id = "bench",
                      .layers = flags_.layers,
                      .q_heads = flags_.q_heads,
                      .kv_heads = flags_.kv_heads,
                      .head_dim = flags_.head_dim,
                      .value_dim = flags_.head_dim,
                      .element_type = ElementType::kBFloat16,
                      .logit_scale = 1.0f / std::sqrt(static_cast<float>(flags_.head_dim))},
      .replication = {.replicas = flags_.replicas}};
  for (uint32_t layer = 0; layer < flags_.layers; ++layer) request.stored_layers.push_back(layer);
  ATTIC_RETURN_IF_ERROR(client_->OpenSession(request).status());
  ATTIC_ASSIGN_OR_RETURN(const auto stream, client_->OpenAppendStream());
  // bfloat16 between 0.5 and 2, of either sign.
  std::mt19937_64 random(std::hash<std::string>()(id));
  std::vector<uint16_t> rows(2 * kAppendTokens * flags_.kv_heads * flags_.head_dim);
  for (int64_t begin = 0; begin < flags_.tokens; begin += kAppendTokens) {
    for (uint16_t& number : rows) {
      number = static_cast<uint16_t>(0x3f00 | (random() & 0x80ff));
    }
    const std::span<const std::byte> bytes = std::as_bytes(std::span(rows));
    for (uint32_t layer = 0; layer < flags_.layers; ++layer) {
      ATTIC_RETURN_IF_ERROR(stream->Append({.session_id = id,
                                            .layer = layer,
                                            .begin_position = begin,
                                            .count = kAppendTokens,
                                            .keys = bytes.first(bytes.size() / 2),
                                            .values = bytes.subspan(bytes.size() / 2)}));
    }
  }
  return stream->Flush(absl::Now() + kTimeout).status();
}

absl::Status Bench::WaitForIndex() {
  for (;;) {
    ATTIC_ASSIGN_OR_RETURN(const StoreStatus status, client_->Status());
    if (status.pending_segments == 0) return absl::OkStatus();
    absl::SleepFor(absl::Milliseconds(100));
  }
}

absl::Status Bench::Ask(std::mt19937_64& random) {
  std::normal_distribution<float> normal;
  std::vector<float> queries(size_t{flags_.q_heads} * flags_.head_dim);
  for (float& number : queries) number = normal(random);
  const auto layer = static_cast<uint32_t>(random() % flags_.layers);
  std::vector<AttendItem> items;
  for (int i = 0; i < flags_.batch; ++i) {
    items.push_back({.session_id = Id(static_cast<int>(random() % flags_.sessions)),
                     .layer = layer,
                     .queries = queries});
  }
  const absl::Time begin = absl::Now();
  ATTIC_ASSIGN_OR_RETURN(const auto answers, client_->Attend(items, begin + kTimeout));
  const double took = absl::ToDoubleMilliseconds(absl::Now() - begin);
  for (const AttendAnswer& answer : answers) ATTIC_RETURN_IF_ERROR(answer.status);
  MutexLock lock(mutex_);
  milliseconds_.push_back(took);
  return absl::OkStatus();
}

absl::StatusOr<nlohmann::json> Bench::Measure() {
  const double cpu = CpuSeconds();
  const absl::Time begin = absl::Now();
  const absl::Time end = begin + absl::Seconds(flags_.seconds);
  std::vector<std::thread> threads;
  for (int t = 0; t < flags_.threads; ++t) {
    threads.emplace_back([this, t, end] {
      std::mt19937_64 random(static_cast<uint64_t>(t));
      while (absl::Now() < end) {
        const absl::Status asked = Ask(random);
        if (asked.ok()) continue;
        MutexLock lock(mutex_);
        error_ = asked;
        return;
      }
    });
  }
  for (std::thread& thread : threads) thread.join();
  const double seconds = absl::ToDoubleSeconds(absl::Now() - begin);
  MutexLock lock(mutex_);
  ATTIC_RETURN_IF_ERROR(error_);
  std::sort(milliseconds_.begin(), milliseconds_.end());
  const auto calls = static_cast<double>(milliseconds_.size());
  return nlohmann::json{
      {"calls_per_second", calls / seconds},
      {"sequences_per_second", calls * flags_.batch / seconds},
      {"median_ms", milliseconds_[milliseconds_.size() / 2]},
      {"p99_ms", milliseconds_[milliseconds_.size() * 99 / 100]},
      {"client_cpu_ms_per_call", (CpuSeconds() - cpu) * 1e3 / calls},
      {"query_bytes_per_sequence", flags_.q_heads * flags_.head_dim * sizeof(float)},
      {"answer_bytes_per_sequence", flags_.q_heads * (flags_.head_dim + 3) * sizeof(float)}};
}

}  // namespace
}  // namespace attic

int main(int argc, char** argv) {
  attic::Flags flags;
  CLI::App app("Attention per second over sessions of a store or a cluster.", "cluster_attend");
  app.add_option("--server", flags.server, "addresses of stores")->required();
  app.add_option("--name", flags.name, "of the sessions")->capture_default_str();
  app.add_option("--sessions", flags.sessions)->capture_default_str();
  app.add_option("--tokens", flags.tokens, "of a session")->capture_default_str();
  app.add_option("--layers", flags.layers)->capture_default_str();
  app.add_option("--kv-heads", flags.kv_heads)->capture_default_str();
  app.add_option("--q-heads", flags.q_heads)->capture_default_str();
  app.add_option("--head-dim", flags.head_dim)->capture_default_str();
  app.add_option("--replicas", flags.replicas)->capture_default_str();
  app.add_option("--batch", flags.batch, "sequences of one call")->capture_default_str();
  app.add_option("--threads", flags.threads, "that call")->capture_default_str();
  app.add_option("--seconds", flags.seconds)->capture_default_str();
  CLI11_PARSE(app, argc, argv);
  const auto report = attic::Bench(flags).Run();
  if (!report.ok()) {
    std::fprintf(stderr, "error: %s\n", report.status().ToString().c_str());
    return 1;
  }
  std::printf("%s\n", report->dump().c_str());
  return 0;
}
