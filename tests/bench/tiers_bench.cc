// What it costs to keep a session on disk, and to have less memory than it takes:
//
//   ingest     tokens a second of durable sessions beside those of sessions in memory
//   restart    from the start of a store to its first answers about a session on disk
//   budgets    latency, error and coverage of answers where the session is 1, 2, 4 and 8 times as
//              large as the memory that the store may use, beside those from memory. Questions are
//              about topics of the text whose popularity is that of Zipf's law with exponent 1.
//
//   tiers_bench [--tokens N] [--queries N] [--directory FOLDER] [--json]
//
// One head of 128 dimensions and a group of four queries, of made-up text (synthetic_head.h). Reads
// go past the page cache where the folder's file system permits it, and the cache is emptied
// before a restart.
#include <fcntl.h>
#include <unistd.h>

#include <CLI/CLI.hpp>
#include <algorithm>
#include <chrono>
#include <cmath>
#include <cstdio>
#include <filesystem>
#include <nlohmann/json.hpp>
#include <string>
#include <thread>
#include <vector>

#include "absl/strings/str_cat.h"
#include "absl/time/clock.h"
#include "base/check.h"
#include "server/session/session_store.h"
#include "tests/unit/index/synthetic_head.h"

namespace attic {
namespace {

namespace fs = std::filesystem;
using nlohmann::json;

constexpr size_t kHeadDim = 128;
constexpr size_t kGroup = 4;
constexpr size_t kTopics = 8192;
constexpr float kTopicWeight = 4;  // of a question
constexpr size_t kBatchTokens = 8192;
constexpr size_t kSampleEvery = 64;  // tokens to a training query
constexpr int kIngestRounds = 3;
constexpr size_t kIngestTokens = 262144;
constexpr size_t kExactQueries = 32;
constexpr absl::Duration kPatience = absl::Minutes(30);
const ElementType kType = ElementType::kBFloat16;

struct Options {
  size_t tokens = 1 << 20;
  size_t queries = 400;
  std::string directory;
  bool as_json = false;
};

double Quantile(std::vector<double> x, double q) {
  const auto at = x.begin() + static_cast<std::ptrdiff_t>(q * static_cast<double>(x.size() - 1));
  std::nth_element(x.begin(), at, x.end());
  return *at;
}

double Seconds() {
  const auto now = std::chrono::steady_clock::now().time_since_epoch();
  return std::chrono::duration<double>(now).count();
}

OpenSessionRequest Request(const std::string& id, Durability durability) {
  OpenSessionRequest request;
  request.session_id = id;
  request.fingerprint = {.model_id = "tiers_bench",
                         .layers = 1,
                         .q_heads = kGroup,
                         .kv_heads = 1,
                         .head_dim = kHeadDim,
                         .value_dim = kHeadDim,
                         .element_type = kType,
                         .logit_scale = static_cast<float>(1 / std::sqrt(double{kHeadDim})),
                         .position_encoding = "none"};
  request.stored_layers = {0};
  request.durability = durability;
  return request;
}

// Questions of a group are about one topic.
class Questions {
 public:
  explicit Questions(SyntheticHead& head) : head_(head) {
    double sum = 0;
    for (size_t i = 0; i < kTopics; ++i) cumulative_.push_back(sum += 1.0 / (1.0 + i));
  }

  std::vector<float> Next() {
    std::uniform_real_distribution<double> uniform(0, cumulative_.back());
    const auto at =
        std::lower_bound(cumulative_.begin(), cumulative_.end(), uniform(head_.random()));
    // Popular topics are anywhere in the text.
    const auto rank = static_cast<size_t>(at - cumulative_.begin());
    const size_t topic = rank * 2654435761u % kTopics;
    std::vector<float> queries;
    for (size_t g = 0; g < kGroup; ++g) {
      const std::vector<float> query = head_.QueryAbout(topic, kTopicWeight);
      queries.insert(queries.end(), query.begin(), query.end());
    }
    return queries;
  }

 private:
  SyntheticHead& head_;
  std::vector<double> cumulative_;
};

class TiersBench {
 public:
  explicit TiersBench(const Options& options) : options_(options) {}

  json Run() {
    json result;
    result["tokens"] = options_.tokens;
    result["head_dim"] = kHeadDim;
    result["ingest"] = MeasureIngest();
    PrepareQuestions();
    Fill();
    result["restart"] = MeasureRestart();
    result["budgets"] = json::array();
    for (const double times : {0.0, 1.0, 2.0, 4.0, 8.0}) {
      result["budgets"].push_back(MeasureBudget(times));
    }
    return result;
  }

 private:
  SessionStoreOptions StoreOptions(uint64_t budget = 0) const {
    SessionStoreOptions options;
    options.disk.store.directory = options_.directory + "/store";
    options.disk.store.segment_files.direct_reads = true;
    options.limits.memory_bytes_max = budget;
    return options;
  }

  std::unique_ptr<SessionStore> OpenStore(const SessionStoreOptions& options) const {
    auto store = SessionStore::Open(options);
    if (!store.ok()) {
      std::fprintf(stderr, "tiers_bench: %s\n", std::string(store.status().message()).c_str());
      std::exit(1);
    }
    return *std::move(store);
  }

  void Say(const std::string& what) const { std::fprintf(stderr, "%s\n", what.c_str()); }

  // Seconds until everything is built and, if durable, durable.
  double Append(SessionStore& store, const std::string& id, Durability durability,
                size_t tokens) const {
    SyntheticHead head(HeadOptions());
    ATTIC_CHECK(store.OpenSession(Request(id, durability)).ok());
    double seconds = 0;  // without making up the text
    for (size_t begin = 0; begin < tokens; begin += kBatchTokens) {
      const size_t count = std::min(kBatchTokens, tokens - begin);
      std::vector<float> keys, values, samples;
      head.AppendTokens(count, keys, values);
      for (size_t i = 0; i < count / kSampleEvery * kGroup; ++i) {
        const std::vector<float> query = head.Query();
        samples.insert(samples.end(), query.begin(), query.end());
      }
      const std::vector<std::byte> key_rows = Narrow(keys, kType);
      const std::vector<std::byte> value_rows = Narrow(values, kType);
      const double start = Seconds();
      ATTIC_CHECK(store
                      .Append({.session_id = id,
                               .begin_position = static_cast<int64_t>(begin),
                               .count = count,
                               .keys = key_rows,
                               .values = value_rows,
                               .query_sample = samples},
                              absl::Now() + kPatience)
                      .ok());
      // What is built meanwhile counts, so making up text must not hide it.
      ATTIC_CHECK(store.WaitForBuilds(absl::Now() + kPatience).ok());
      seconds += Seconds() - start;
    }
    const double start = Seconds();
    if (durability == Durability::kDurable) {
      ATTIC_CHECK(store.FlushSession(id, absl::Now() + kPatience).ok());
    }
    return seconds + Seconds() - start;
  }

  json MeasureIngest() {
    std::vector<double> memory, durable;
    const size_t tokens = std::min(options_.tokens, kIngestTokens);
    for (int round = 0; round < kIngestRounds; ++round) {
      fs::remove_all(options_.directory + "/store");
      const auto store = OpenStore(StoreOptions());
      memory.push_back(tokens / Append(*store, "memory", Durability::kMemory, tokens));
      ATTIC_CHECK(store->CloseSession("memory").ok());
      durable.push_back(tokens / Append(*store, "durable", Durability::kDurable, tokens));
      Say(absl::StrCat("ingest: ", memory.back(), " tokens/s in memory, ", durable.back(),
                       " durable"));
    }
    fs::remove_all(options_.directory + "/store");
    const double in_memory = Quantile(memory, 0.5), on_disk = Quantile(durable, 0.5);
    return {{"rounds", kIngestRounds},
            {"tokens", tokens},
            {"memory_tokens_per_second", in_memory},
            {"durable_tokens_per_second", on_disk},
            {"ratio", on_disk / in_memory}};
  }

  static SyntheticOptions HeadOptions() {
    SyntheticOptions options;
    options.head_dim = options.value_dim = kHeadDim;
    options.topics = kTopics;
    return options;
  }

  void PrepareQuestions() {
    SyntheticHead head(HeadOptions());
    Questions questions(head);
    for (size_t i = 0; i < 3 * options_.queries; ++i) questions_.push_back(questions.Next());
  }

  void Fill() {
    const auto store = OpenStore(StoreOptions());
    const double seconds = Append(*store, "session", Durability::kDurable, options_.tokens);
    memory_ = store->Status().memory;
    vectors_bytes_ = memory_.vectors_bytes + memory_.evicted_bytes;
    index_bytes_ = memory_.summaries_bytes + memory_.codes_bytes;
    Say(absl::StrCat("session of ", options_.tokens, " tokens built in ", seconds,
                     " s: ", vectors_bytes_ >> 20, " MiB of vectors, ", index_bytes_ >> 20,
                     " MiB of index"));
    for (size_t i = 0; i < std::min(kExactQueries, options_.queries); ++i) {
      exact_.push_back(Ask(*store, Measured(i), AttendMode::kExact, {}));
    }
  }

  const std::vector<float>& Measured(size_t i) const {
    return questions_[2 * options_.queries + i];
  }

  static AttendAnswer Ask(SessionStore& store, const std::vector<float>& queries, AttendMode mode,
                          PositionRange range) {
    const AttendItem item{
        .session_id = "session", .range = range, .mode = mode, .queries = queries};
    auto answers = store.Attend({&item, 1}, absl::InfiniteFuture());
    ATTIC_CHECK(answers.ok());
    return answers->front();
  }

  // The pages of the directory's files go from the machine's cache.
  void EmptyPageCache() const {
    for (const auto& entry : fs::recursive_directory_iterator(options_.directory)) {
      if (!entry.is_regular_file()) continue;
      const int file = open(entry.path().c_str(), O_RDONLY);
      if (file < 0) continue;
      fdatasync(file);
      posix_fadvise(file, 0, 0, POSIX_FADV_DONTNEED);
      close(file);
    }
  }

  json MeasureRestart() {
    std::vector<double> first, whole, exact;
    for (int round = 0; round < 3; ++round) {
      EmptyPageCache();
      const double start = Seconds();
      const auto store = OpenStore(StoreOptions());
      const auto until = [&](AttendMode mode, PositionRange range) {
        while (!Ask(*store, Measured(0), mode, range).status.ok()) {
          std::this_thread::sleep_for(std::chrono::microseconds(200));
        }
        return Seconds() - start;
      };
      const auto tokens = static_cast<int64_t>(options_.tokens);
      first.push_back(until(AttendMode::kIndexed, {0, tokens / 8}));
      whole.push_back(until(AttendMode::kIndexed, {}));
      exact.push_back(until(AttendMode::kExact, {}));
    }
    const double gib = static_cast<double>(index_bytes_) / (1u << 30);
    const json result = {{"index_bytes", index_bytes_},
                         {"first_eighth_seconds", Quantile(first, 0.5)},
                         {"first_answer_seconds", Quantile(whole, 0.5)},
                         {"first_exact_answer_seconds", Quantile(exact, 0.5)},
                         {"first_answer_seconds_per_gib_of_index", Quantile(whole, 0.5) / gib}};
    Say(absl::StrCat("restart: ", result.dump()));
    return result;
  }

  // times: of the session's size in terms of the budget; 0: all in memory.
  json MeasureBudget(double times) {
    const auto total = static_cast<double>(vectors_bytes_ + index_bytes_);
    SessionStoreOptions options =
        StoreOptions(static_cast<uint64_t>(times == 0 ? 2 * total : total / times));
    const auto store = OpenStore(options);
    ATTIC_CHECK(store->WaitForBuilds(absl::Now() + kPatience).ok());
    if (times == 0) {
      while (store->Status().memory.evicted_bytes > 0) absl::SleepFor(absl::Milliseconds(10));
    }
    // A hot cache: what came before, in the same proportion.
    for (size_t i = 0; i < 2 * options_.queries; ++i) {
      Ask(*store, questions_[i], AttendMode::kIndexed, {});
    }
    const StoreStatus before = store->Status();
    std::vector<double> milliseconds, errors;
    double coverage = 0, disk_bytes = 0, bytes = 0, exact_tokens = 0;
    for (size_t i = 0; i < options_.queries; ++i) {
      const double start = Seconds();
      const AttendAnswer answer = Ask(*store, Measured(i), AttendMode::kIndexed, {});
      milliseconds.push_back(1e3 * (Seconds() - start));
      ATTIC_CHECK(answer.status.ok());
      for (const float share : answer.coverage) coverage += share;
      disk_bytes += static_cast<double>(answer.read.disk_bytes_read);
      bytes += static_cast<double>(answer.read.bytes_read);
      exact_tokens += static_cast<double>(answer.read.exact_tokens);
      if (i < exact_.size()) AddErrors(answer, exact_[i], errors);
    }
    const StoreStatus after = store->Status();
    const double hits = static_cast<double>(after.cache_hits - before.cache_hits);
    const double misses = static_cast<double>(after.cache_misses - before.cache_misses);
    const auto n = static_cast<double>(options_.queries);
    if (times == 0) in_memory_ms_ = Quantile(milliseconds, 0.5);
    const json result = {{"times_the_budget", times},
                         {"budget_bytes", options.limits.memory_bytes_max},
                         {"memory_bytes", after.memory.total() + after.cache_bytes},
                         {"p50_ms", Quantile(milliseconds, 0.5)},
                         {"p99_ms", Quantile(milliseconds, 0.99)},
                         {"p50_ratio", Quantile(milliseconds, 0.5) / in_memory_ms_},
                         {"coverage", coverage / n / kGroup},
                         {"median_error", Quantile(errors, 0.5)},
                         {"largest_error", Quantile(errors, 1.0)},
                         {"bytes_read", bytes / n},
                         {"exact_tokens", exact_tokens / n},
                         {"clusters_fetched", (hits + misses) / n},
                         {"disk_bytes_read", disk_bytes / n},
                         {"cache_hit_rate", hits + misses > 0 ? hits / (hits + misses) : 1.0}};
    Say(absl::StrCat("budget: ", result.dump()));
    return result;
  }

  static void AddErrors(const AttendAnswer& answer, const AttendAnswer& exact,
                        std::vector<double>& errors) {
    for (size_t g = 0; g < kGroup; ++g) {
      double difference = 0, length = 0;
      for (size_t i = g * kHeadDim; i < (g + 1) * kHeadDim; ++i) {
        const double d = answer.output[i] - exact.output[i];
        difference += d * d;
        length += double{exact.output[i]} * exact.output[i];
      }
      errors.push_back(std::sqrt(difference / length));
    }
  }

  const Options options_;
  std::vector<std::vector<float>> questions_;  // two thirds to warm up, then those measured
  std::vector<AttendAnswer> exact_;            // to the first questions measured
  MemoryUse memory_;
  uint64_t vectors_bytes_ = 0, index_bytes_ = 0;
  double in_memory_ms_ = 0;
};

void Print(const json& result) {
  const json& ingest = result["ingest"];
  std::printf("ingest, %lld tokens: %.0f tokens/s in memory, %.0f durable: %.2f times\n",
              ingest["tokens"].get<long long>(), ingest["memory_tokens_per_second"].get<double>(),
              ingest["durable_tokens_per_second"].get<double>(), ingest["ratio"].get<double>());
  const json& restart = result["restart"];
  std::printf(
      "restart, %lld tokens: first eighth answered after %.3f s, all after %.3f s (%.2f s per GiB "
      "of index), exactly after %.3f s\n",
      result["tokens"].get<long long>(), restart["first_eighth_seconds"].get<double>(),
      restart["first_answer_seconds"].get<double>(),
      restart["first_answer_seconds_per_gib_of_index"].get<double>(),
      restart["first_exact_answer_seconds"].get<double>());
  std::printf("%-8s %10s %10s %8s %8s %8s %9s %9s %10s %6s\n", "session", "budget", "in use",
              "p50 ms", "p99 ms", "ratio", "coverage", "error", "disk/query", "hits");
  for (const json& budget : result["budgets"]) {
    const double times = budget["times_the_budget"];
    std::printf("%-8s %6.0f MiB %6.0f MiB %8.2f %8.2f %8.2f %9.4f %9.4f %6.2f MiB %6.2f\n",
                times == 0 ? "memory" : absl::StrCat(times, "x").c_str(),
                budget["budget_bytes"].get<double>() / (1 << 20),
                budget["memory_bytes"].get<double>() / (1 << 20), budget["p50_ms"].get<double>(),
                budget["p99_ms"].get<double>(), budget["p50_ratio"].get<double>(),
                budget["coverage"].get<double>(), budget["median_error"].get<double>(),
                budget["disk_bytes_read"].get<double>() / (1 << 20),
                budget["cache_hit_rate"].get<double>());
  }
}

int Main(int argc, char** argv) {
  Options options;
  CLI::App app("What disk costs: ingest, restart, and sessions larger than memory.", "tiers_bench");
  app.add_option("--tokens", options.tokens, "of the session")->capture_default_str();
  app.add_option("--queries", options.queries, "measured for each budget")->capture_default_str();
  app.add_option("--directory", options.directory, "a folder for the session; emptied");
  app.add_flag("--json", options.as_json);
  CLI11_PARSE(app, argc, argv);
  if (options.directory.empty()) {
    options.directory = (fs::temp_directory_path() / "attic_tiers_bench").string();
  }
  fs::create_directories(options.directory);
  const json result = TiersBench(options).Run();
  fs::remove_all(options.directory + "/store");
  if (options.as_json) {
    std::printf("%s\n", result.dump(2).c_str());
  } else {
    Print(result);
  }
  return 0;
}

}  // namespace
}  // namespace attic

int main(int argc, char** argv) { return attic::Main(argc, argv); }
