#include "client/cli/demo/demo.h"

#include <chrono>
#include <filesystem>
#include <iostream>
#include <memory>
#include <random>
#include <utility>

#include "absl/strings/str_cat.h"
#include "absl/time/clock.h"
#include "base/status_macros.h"
#include "client/cli/demo/haystack.h"
#include "client/cli/demo/processes.h"
#include "client/cli/demo/stores.h"
#include "client/cli/progress.h"
#include "client/cli/text_format.h"
#include "client/cpp/client.h"

namespace attic::cli {
namespace {

constexpr char kSession[] = "demo";
constexpr char kSecondSession[] = "demo-second";
constexpr int64_t kTokensMax = 16'777'216;   // of one Prefill
constexpr size_t kTextPerNeedleBytes = 256;  // needles further apart than a worker's window
constexpr uint32_t kAnswerTokens = 4;
constexpr size_t kTimedRounds = 3;
constexpr absl::Duration kStartTimeout = absl::Seconds(60);
constexpr absl::Duration kIndexPollInterval = absl::Milliseconds(100);
constexpr absl::Duration kRecoveryPollInterval = absl::Milliseconds(10);
constexpr absl::Duration kIndexStallTimeout = absl::Minutes(5);

std::string TextOf(const std::vector<DecodedToken>& tokens) {
  std::string text;
  for (const DecodedToken& token : tokens) text += static_cast<char>(token.token_id);
  return text;
}

// Adds what one round said to the rounds before: a question counts as right when every round is.
void AddAnswer(const Needle& needle, const std::vector<DecodedToken>& tokens, std::string& answer,
               std::vector<DecodedToken>& all) {
  const std::string text = TextOf(tokens);
  if (all.empty() || text != needle.digits) answer = text;
  all.insert(all.end(), tokens.begin(), tokens.end());
}

// One run of the demo, from text to answers.
class Demo {
 public:
  explicit Demo(const DemoOptions& options) : options_(options) {
    report_.seed = options.seed;
    report_.selection = options.selection;
  }

  absl::StatusOr<DemoReport> Run() {
    ATTIC_RETURN_IF_ERROR(CheckOptions());
    ATTIC_RETURN_IF_ERROR(Phase("text", &Demo::HideNeedlesInText));
    ATTIC_RETURN_IF_ERROR(Phase("start", &Demo::StartProcesses));
    ATTIC_RETURN_IF_ERROR(Phase("prefill", &Demo::Prefill));
    ATTIC_RETURN_IF_ERROR(Phase("index", &Demo::WaitForIndex));
    if (options_.durable) ATTIC_RETURN_IF_ERROR(Phase("kill and restart", &Demo::CrashStore));
    ATTIC_RETURN_IF_ERROR(Phase("questions", &Demo::AskQuestions));
    ATTIC_RETURN_IF_ERROR(Phase("second reader", &Demo::ReadAgain));
    if (options_.probes > 0) ATTIC_RETURN_IF_ERROR(Phase("probes", &Demo::Probe));
    ATTIC_ASSIGN_OR_RETURN(report_.store, Status());
    return std::move(report_);
  }

 private:
  absl::Status Phase(const std::string& name, absl::Status (Demo::*body)());
  absl::Status CheckOptions() const;
  absl::Status HideNeedlesInText();
  absl::Status StartProcesses();
  absl::Status Prefill();
  absl::Status WaitForIndex();
  absl::StatusOr<StoreStatus> Status();
  absl::Status CrashStore();
  absl::Status AskQuestions();
  absl::Status ReadAgain();
  absl::Status Probe();
  // Opens a sequence, reads the text and generates one token of the first answer.
  absl::StatusOr<DemoReading> Read(const std::string& session_id);
  absl::StatusOr<std::vector<DecodedToken>> Answer(DecodeCall call);
  void Say(const std::string& line) const {
    if (!options_.quiet) std::cerr << line << std::endl;
  }

  const DemoOptions options_;
  DemoReport report_;
  std::string text_;
  std::vector<Needle> needles_;
  size_t forks_ = 0;
  // The worker uses the stores: destroyed, and so stopped, in the opposite order.
  std::unique_ptr<DemoStores> stores_;
  std::unique_ptr<ServerProcess> worker_process_;
  std::unique_ptr<Client> store_;
  std::unique_ptr<WorkerClient> worker_;
};

absl::Status Demo::Phase(const std::string& name, absl::Status (Demo::*body)()) {
  const auto start = std::chrono::steady_clock::now();
  const absl::Status status = (this->*body)();
  const std::chrono::duration<double> seconds = std::chrono::steady_clock::now() - start;
  report_.phase_seconds.emplace_back(name, seconds.count());
  if (status.ok()) return status;
  std::string message = absl::StrCat(name, ": ", std::string(status.message()));
  // A call that failed because a process died says little; the process's last words say more.
  if (status.code() == absl::StatusCode::kUnavailable) {
    if (stores_ != nullptr) absl::StrAppend(&message, stores_->last_lines());
    if (worker_process_ != nullptr && !worker_process_->last_line().empty()) {
      absl::StrAppend(&message, " (attic-worker: ", worker_process_->last_line(), ")");
    }
  }
  return absl::Status(status.code(), message);
}

absl::Status Demo::CheckOptions() const {
  if (!options_.store_addresses.empty() && (options_.cluster_stores > 0 || options_.durable)) {
    return absl::InvalidArgumentError("--store: is not started, or killed, by the demo");
  }
  if (options_.cluster_stores > 0 && options_.durable) {
    return absl::InvalidArgumentError("--durable: kills the only store, not one of a cluster");
  }
  if (options_.questions < 1 || options_.questions > kNeedlesMax) {
    return absl::InvalidArgumentError(absl::StrCat("--questions: 1 to ", kNeedlesMax));
  }
  const auto tokens_min = static_cast<int64_t>(options_.questions * kTextPerNeedleBytes);
  if (options_.tokens < tokens_min || options_.tokens > kTokensMax) {
    return absl::InvalidArgumentError(absl::StrCat("--tokens: ", FormatCount(tokens_min), " to ",
                                                   FormatCount(kTokensMax), " for ",
                                                   options_.questions, " questions"));
  }
  if (!std::filesystem::exists(std::filesystem::path(options_.model_dir) / "config.json")) {
    return absl::NotFoundError(
        absl::StrCat("--model: no model (config.json) in ", options_.model_dir));
  }
  return absl::OkStatus();
}

absl::Status Demo::HideNeedlesInText() {
  needles_ = MakeNeedles(options_.questions, options_.seed);
  const size_t bytes = static_cast<size_t>(options_.tokens) - StatementBytes(needles_);
  absl::StatusOr<Haystack> haystack = options_.text_files.empty()
                                          ? FindHaystack(DefaultTextRoots(), bytes)
                                          : ReadHaystack(options_.text_files, bytes);
  ATTIC_RETURN_IF_ERROR(haystack.status());
  text_ = HideNeedles(haystack->text, needles_);
  report_.tokens = static_cast<int64_t>(text_.size());
  report_.text_files = haystack->files;
  Say(absl::StrCat("text       ", FormatCount(report_.tokens), " bytes from ", haystack->files,
                   " files, ", needles_.size(), " needles hidden"));
  return absl::OkStatus();
}

absl::Status Demo::StartProcesses() {
  ATTIC_ASSIGN_OR_RETURN(stores_, DemoStores::Start({.addresses = options_.store_addresses,
                                                     .cluster_stores = options_.cluster_stores,
                                                     .durable = options_.durable,
                                                     .store_arguments = options_.store_arguments}));
  ATTIC_ASSIGN_OR_RETURN(store_, ConnectClient({.address = stores_->addresses()}));

  std::vector<std::string> arguments = {"--listen",           "127.0.0.1:0", "--store",
                                        stores_->addresses(), "--model",     options_.model_dir};
  if (options_.durable) arguments.push_back("--durable");
  arguments.insert(arguments.end(), options_.worker_arguments.begin(),
                   options_.worker_arguments.end());
  ATTIC_ASSIGN_OR_RETURN(worker_process_,
                         ServerProcess::Start(BesideThisBinary("attic-worker"), arguments,
                                              "attic-worker ready on", kStartTimeout));
  ATTIC_ASSIGN_OR_RETURN(worker_, WorkerClient::Connect(worker_process_->address(), kStartTimeout));
  ATTIC_ASSIGN_OR_RETURN(report_.model, worker_->GetModel());
  const WorkerModel& model = report_.model;
  Say(absl::StrCat("start      store at ", stores_->addresses(), ", worker at ",
                   worker_process_->address(), " (", model.backend, "), model ",
                   model.fingerprint.model_id, ": ", model.fingerprint.layers, " layers, ",
                   model.full_attention_layers, " with full attention, worker keeps ",
                   model.sink_tokens, " + ", model.window_tokens, " tokens"));
  if (model.vocab_size < 256) {
    return absl::InvalidArgumentError(absl::StrCat("--model: a vocabulary of ", model.vocab_size,
                                                   " has no token for every byte"));
  }
  return absl::OkStatus();
}

absl::StatusOr<DemoReading> Demo::Read(const std::string& session_id) {
  DemoReading reading;
  ATTIC_RETURN_IF_ERROR(worker_->Open(session_id));
  const auto start = std::chrono::steady_clock::now();
  const auto seconds = [&] {
    return std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count();
  };
  {
    ProgressBar progress("prefill", report_.tokens, "tokens", !options_.quiet);
    ATTIC_ASSIGN_OR_RETURN(reading.prefill,
                           worker_->Prefill(session_id, text_, [&](int64_t tokens, int64_t) {
                             progress.Update(tokens);
                           }));
  }
  const double read = seconds();
  ATTIC_RETURN_IF_ERROR(Answer({.session_id = session_id,
                                .prompt = needles_.front().Question(),
                                .max_tokens = 1,
                                .selection = options_.selection})
                            .status());
  reading.first_token_seconds = seconds();
  Say(absl::StrCat("prefill    ", FormatCount(report_.tokens), " tokens in ", FormatSeconds(read),
                   ", ", FormatCount(static_cast<int64_t>(report_.tokens / read)), " tokens/s, ",
                   FormatCount(reading.prefill.reused_tokens), " found in the store"));
  return reading;
}

absl::Status Demo::Prefill() {
  ATTIC_ASSIGN_OR_RETURN(report_.first, Read(kSession));
  return absl::OkStatus();
}

// Another sequence of the same text, as of somebody else with other questions about it.
absl::Status Demo::ReadAgain() {
  ATTIC_ASSIGN_OR_RETURN(report_.second, Read(kSecondSession));
  for (const Needle& needle : needles_) {
    ATTIC_ASSIGN_OR_RETURN(const std::vector<DecodedToken> tokens,
                           Answer({.session_id = kSecondSession,
                                   .prompt = needle.Question(),
                                   .max_tokens = kAnswerTokens,
                                   .selection = options_.selection}));
    report_.second_correct += TextOf(tokens) == needle.digits ? 1 : 0;
  }
  return worker_->Close(kSecondSession);
}

// A cluster says nothing of all its stores while one is gone that is not known to be down.
absl::StatusOr<StoreStatus> Demo::Status() {
  const bool cluster = options_.cluster_stores > 0 || !options_.store_addresses.empty();
  const absl::Time deadline = absl::Now() + kStartTimeout;
  absl::StatusOr<StoreStatus> status = store_->Status();
  while (cluster && absl::IsUnavailable(status.status()) && absl::Now() < deadline) {
    absl::SleepFor(kIndexPollInterval);
    status = store_->Status();
  }
  return status;
}

absl::Status Demo::WaitForIndex() {
  ATTIC_ASSIGN_OR_RETURN(StoreStatus status, Status());
  const auto total = static_cast<int64_t>(status.pending_segments);
  uint64_t pending = status.pending_segments;
  absl::Time stalled = absl::Now() + kIndexStallTimeout;
  ProgressBar progress("index", total, "segments", !options_.quiet);
  while (status.pending_segments > 0) {
    if (status.pending_segments != pending) stalled = absl::Now() + kIndexStallTimeout;
    pending = status.pending_segments;
    if (absl::Now() >= stalled) {
      return absl::DeadlineExceededError(absl::StrCat(pending, " segments are still waiting after ",
                                                      absl::FormatDuration(kIndexStallTimeout)));
    }
    progress.Update(total - static_cast<int64_t>(pending));
    absl::SleepFor(kIndexPollInterval);
    ATTIC_ASSIGN_OR_RETURN(status, Status());
  }
  return absl::OkStatus();
}

// What was read is durable, so a killed store knows it when it is back.
absl::Status Demo::CrashStore() {
  ATTIC_RETURN_IF_ERROR(store_->FlushSession(kSession, absl::Now() + kStartTimeout).status());
  const auto start = std::chrono::steady_clock::now();
  ATTIC_RETURN_IF_ERROR(stores_->CrashAndRestart());
  const absl::Time deadline = absl::Now() + kIndexStallTimeout;
  absl::StatusOr<StoreStatus> status = store_->Status();
  while (!status.ok() || status->recovering_sessions > 0) {
    if (absl::Now() >= deadline) return absl::DeadlineExceededError("the session is not back");
    absl::SleepFor(kRecoveryPollInterval);
    status = store_->Status();
  }
  const std::chrono::duration<double> seconds = std::chrono::steady_clock::now() - start;
  report_.recovery_seconds = seconds.count();
  ATTIC_ASSIGN_OR_RETURN(const SessionDescription back, store_->DescribeSession(kSession));
  Say(absl::StrCat("restart    store killed and started again: ", FormatCount(back.watermark),
                   " tokens are back after ", FormatSeconds(seconds.count())));
  return absl::OkStatus();
}

// Each way of asking goes through all questions before the other begins: so it is timed as it runs
// alone, with the caches that it leaves for itself. The two take turns, so that neither has the
// machine's better moments.
absl::Status Demo::AskQuestions() {
  for (const Needle& needle : needles_) report_.rows.push_back({.needle = needle});
  int64_t asked = 0;
  ProgressBar progress("questions", static_cast<int64_t>((2 * kTimedRounds + 1) * needles_.size()),
                       "answers", !options_.quiet);
  const auto ask = [&](AttendMode mode, bool compare_exact, auto take) {
    for (DemoRow& row : report_.rows) {
      ATTIC_ASSIGN_OR_RETURN(const std::vector<DecodedToken> tokens,
                             Answer({.session_id = kSession,
                                     .prompt = row.needle.Question(),
                                     .max_tokens = kAnswerTokens,
                                     .mode = mode,
                                     .selection = options_.selection,
                                     .compare_exact = compare_exact}));
      take(row, tokens);
      progress.Update(++asked);
      // In the middle of the first round.
      if (options_.cluster_stores > 1 && asked == static_cast<int64_t>(needles_.size() / 2)) {
        report_.killed = stores_->KillOne();
      }
    }
    return absl::OkStatus();
  };
  for (size_t round = 0; round < kTimedRounds; ++round) {
    ATTIC_RETURN_IF_ERROR(ask(AttendMode::kIndexed, false, [](DemoRow& row, const auto& tokens) {
      AddAnswer(row.needle, tokens, row.answer, row.tokens);
    }));
    ATTIC_RETURN_IF_ERROR(ask(AttendMode::kExact, false, [](DemoRow& row, const auto& tokens) {
      AddAnswer(row.needle, tokens, row.exact_answer, row.exact_tokens);
    }));
  }
  return ask(AttendMode::kIndexed, true,
             [](DemoRow& row, const auto& tokens) { row.compared = tokens; });
}

// Queries that have nothing to do with the text attend to all of it.
absl::Status Demo::Probe() {
  ATTIC_ASSIGN_OR_RETURN(const SessionDescription session, store_->DescribeSession(kSession));
  std::mt19937_64 random(options_.seed);
  std::normal_distribution<float> normal;
  const Fingerprint& model = session.fingerprint;
  for (size_t i = 0; i < options_.probes; ++i) {
    std::vector<float> queries(size_t{model.q_heads} * model.head_dim);
    for (float& number : queries) number = normal(random);
    const AttendItem item{.session_id = kSession,
                          .layer = session.layers[i % session.layers.size()].layer,
                          .mode = AttendMode::kExact,
                          .queries = queries};
    ATTIC_ASSIGN_OR_RETURN(auto answers, store_->Attend({&item, 1}, absl::Now() + kStartTimeout));
    ATTIC_RETURN_IF_ERROR(answers.front().status);
    report_.probes.push_back(std::move(answers.front().output));
  }
  return absl::OkStatus();
}

// In a fork of the call's session, which knows nothing of the question afterwards.
absl::StatusOr<std::vector<DecodedToken>> Demo::Answer(DecodeCall call) {
  const std::string fork = absl::StrCat("question-", forks_++);
  ATTIC_RETURN_IF_ERROR(worker_->Fork(call.session_id, fork));
  call.session_id = fork;
  ATTIC_ASSIGN_OR_RETURN(std::vector<DecodedToken> tokens, worker_->Decode(call));
  ATTIC_RETURN_IF_ERROR(worker_->Close(fork));
  return tokens;
}

}  // namespace

absl::StatusOr<DemoReport> RunDemo(const DemoOptions& options) { return Demo(options).Run(); }

}  // namespace attic::cli
