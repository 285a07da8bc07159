#include "tests/fault/session_workload.h"

#include <algorithm>
#include <sstream>
#include <utility>

#include "absl/strings/str_cat.h"
#include "absl/time/clock.h"
#include "base/status_macros.h"

namespace attic {
namespace {

constexpr size_t kSessionsMax = 6;
constexpr int64_t kTokensMax = 2500;  // of a session, from which on it is rather cut
constexpr absl::Duration kPatience = absl::Seconds(60);

Outcome OutcomeOf(const SessionDescription& description) {
  Outcome outcome;
  for (const LayerDescription& layer : description.layers) {
    outcome.layers.push_back({layer.layer, layer.watermark, layer.durable_watermark});
  }
  return outcome;
}

absl::StatusOr<Outcome> Append(SessionStore& store, const Operation& operation) {
  const Tokens tokens = ContentOf(operation.content, static_cast<size_t>(operation.count));
  AppendBatch batch = tokens.Batch(operation.id, operation.layer, operation.position);
  const Fingerprint fingerprint = WorkloadFingerprint();
  std::mt19937_64 random(operation.content);
  const std::vector<float> sample =
      RandomFloats(size_t{8} * fingerprint.q_heads * fingerprint.head_dim, random);
  if (operation.content % 2 == 0) batch.query_sample = sample;
  ATTIC_ASSIGN_OR_RETURN(const AppendAck ack, store.Append(batch, absl::Now() + kPatience));
  return Outcome{{{operation.layer, ack.watermark, ack.durable_watermark}}};
}

}  // namespace

SessionStoreOptions FaultOptions(const std::string& directory,
                                 std::shared_ptr<rocksdb::FileSystem> file_system) {
  SessionStoreOptions options;
  options.threads = 2;
  options.build_threads = 1;
  options.limits.memory_bytes_max = 64u << 20;
  options.index.segment_tokens = 256;
  options.index.exact_scan_tokens_max = 512;
  options.disk.store.directory = directory;
  options.disk.store.file_system = std::move(file_system);
  options.disk.store.rows_buffer_bytes = 64u << 10;
  options.disk.store.cache = {.bytes_max = 1u << 20, .read_threads = 1};
  // Vectors leave the memory as soon as they are on disk, and those of sessions in memory are
  // written to files.
  options.disk.tier = {.high_watermark = 0.01,
                       .low_watermark = 0.005,
                       .cache_bytes_min = 256u << 10,
                       .interval = absl::Milliseconds(5)};
  options.disk.sync_interval = absl::Milliseconds(2);
  return options;
}

Fingerprint WorkloadFingerprint() { return SmallFingerprint(); }

const std::vector<uint32_t>& WorkloadLayers() {
  static const std::vector<uint32_t> layers = {0, 3};
  return layers;
}

Tokens ContentOf(uint64_t seed, size_t count) {
  std::mt19937_64 random(seed);
  return Tokens::Random(WorkloadFingerprint(), count, random);
}

std::string Operation::Encode() const {
  return absl::StrCat(std::string(1, static_cast<char>(kind)), " ", id, " ", layer, " ", position,
                      " ", count, " ", content, " ", durable ? 1 : 0, " ", new_id);
}

Operation Operation::Decode(const std::string& line) {
  std::istringstream in(line);
  Operation operation;
  char kind = 0;
  in >> kind >> operation.id >> operation.layer >> operation.position >> operation.count >>
      operation.content >> operation.durable >> operation.new_id;
  operation.kind = static_cast<Kind>(kind);
  return operation;
}

std::string Outcome::Encode() const {
  std::string line;
  for (const Layer& layer : layers) {
    absl::StrAppend(&line, layer.layer, " ", layer.watermark, " ", layer.durable_watermark, " ");
  }
  return line;
}

Outcome Outcome::Decode(const std::string& line) {
  std::istringstream in(line);
  Outcome outcome;
  Layer layer;
  while (in >> layer.layer >> layer.watermark >> layer.durable_watermark) {
    outcome.layers.push_back(layer);
  }
  return outcome;
}

absl::StatusOr<Outcome> Execute(SessionStore& store, const Operation& operation) {
  absl::StatusOr<SessionDescription> description;
  const Durability durability = operation.durable ? Durability::kDurable : Durability::kMemory;
  switch (operation.kind) {
    case Operation::Kind::kOpen:
      description = store.OpenSession({.session_id = operation.id,
                                       .fingerprint = WorkloadFingerprint(),
                                       .stored_layers = WorkloadLayers(),
                                       .durability = durability});
      break;
    case Operation::Kind::kAppend:
      return Append(store, operation);
    case Operation::Kind::kFork:
      description = store.ForkSession(operation.id, {.position = operation.position,
                                                     .new_session_id = operation.new_id,
                                                     .durability = durability});
      break;
    case Operation::Kind::kTruncate:
      description = store.TruncateSession(operation.id, operation.position);
      break;
    case Operation::Kind::kClose:
      ATTIC_RETURN_IF_ERROR(store.CloseSession(operation.id));
      return Outcome{};
    case Operation::Kind::kFlush:
      description = store.FlushSession(operation.id, absl::Now() + kPatience);
      break;
    case Operation::Kind::kWait:
      ATTIC_RETURN_IF_ERROR(store.WaitForBuilds(absl::Now() + kPatience));
      description = store.DescribeSession(operation.id);
      break;
    case Operation::Kind::kDescribe:
      description = store.DescribeSession(operation.id);
      break;
  }
  ATTIC_RETURN_IF_ERROR(description.status());
  return OutcomeOf(*description);
}

Workload::Workload(uint64_t seed, int first_id, SessionStore& store, WorkloadListener& listener)
    : random_(seed), next_id_(first_id), store_(store), listener_(listener) {}

absl::Status Workload::Step() {
  const Operation operation = Choose();
  listener_.Begin(operation);
  ATTIC_ASSIGN_OR_RETURN(const Outcome outcome, Execute(store_, operation));
  listener_.Done(outcome);
  return absl::OkStatus();
}

int64_t Workload::Below(int64_t bound) {
  return bound <= 0 ? 0 : static_cast<int64_t>(random_() % static_cast<uint64_t>(bound));
}

Operation Workload::Choose() {
  using Kind = Operation::Kind;
  const std::vector<SessionDescription> sessions = store_.ListSessions("", kSessionsMax + 1);
  const int64_t kind = Below(100);
  if (sessions.empty() || (kind < 6 && sessions.size() < kSessionsMax)) {
    return {.kind = Kind::kOpen, .id = absl::StrCat("s", next_id_++), .durable = Below(6) > 0};
  }
  const SessionDescription& session = sessions[Below(static_cast<int64_t>(sessions.size()))];
  const LayerDescription& layer = session.layers[Below(2)];
  const int64_t lowest = session.watermark;
  const int64_t highest = std::max(session.layers[0].watermark, session.layers[1].watermark);
  Operation chosen{.id = session.session_id};
  if (kind < 12 && sessions.size() >= kSessionsMax) {
    chosen.kind = Kind::kClose;
  } else if (kind < 20 && sessions.size() < kSessionsMax) {
    chosen.kind = Kind::kFork;
    chosen.position = Below(4) == 0 ? lowest : Below(lowest + 1);
    chosen.new_id = absl::StrCat("f", next_id_++);
    chosen.durable = Below(5) > 0;
  } else if (kind < 28 || highest > kTokensMax) {
    chosen.kind = Kind::kTruncate;
    chosen.position =
        Below(2) == 0 ? Below(highest + 1) : highest - Below(std::min<int64_t>(highest, 100) + 1);
  } else if (kind < 31) {
    chosen.kind = Kind::kClose;
  } else if (kind < 38 && session.durability == Durability::kDurable) {
    chosen.kind = Kind::kFlush;
  } else if (kind < 46) {
    chosen.kind = Kind::kDescribe;
  } else if (kind < 50) {
    chosen.kind = Kind::kWait;
  } else {
    chosen.kind = Kind::kAppend;
    chosen.layer = layer.layer;
    chosen.position = layer.watermark;
    chosen.count = 1 + Below(Below(4) == 0 ? 20 : 400);
    chosen.content = random_() % 1000000007;
  }
  return chosen;
}

}  // namespace attic
