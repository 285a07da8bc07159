#include "wire/convert.h"

#include <gmock/gmock.h>
#include <google/protobuf/stubs/logging.h>
#include <google/protobuf/util/message_differencer.h>
#include <gtest/gtest.h>

#include <cmath>
#include <cstring>
#include <limits>
#include <random>
#include <string>
#include <vector>

namespace attic::wire {
namespace {

using ::testing::ElementsAreArray;
using ::testing::HasSubstr;

// What one process says, another one reads.
template <typename Message>
Message OverTheWire(const Message& message) {
  Message read;
  EXPECT_TRUE(read.ParseFromString(message.SerializeAsString()));
  return read;
}

Fingerprint SomeFingerprint() {
  return {.model_id = "model",
          .revision = "abc",
          .layers = 32,
          .q_heads = 32,
          .kv_heads = 8,
          .head_dim = 128,
          .value_dim = 64,
          .element_type = ElementType::kFloat16,
          .logit_scale = 0.088f,
          .position_encoding = "rope theta=500000"};
}

std::vector<std::byte> SomeBytes(size_t count) {
  std::vector<std::byte> bytes(count);
  for (size_t i = 0; i < count; ++i) bytes[i] = std::byte(i * 37);
  return bytes;
}

std::vector<PrefixHash> SomeHashes() {
  std::vector<PrefixHash> hashes(3);
  for (size_t i = 0; i < hashes.size(); ++i) hashes[i].fill(static_cast<uint8_t>(i * 91 + 200));
  return hashes;
}

template <typename T>
void ExpectInvalid(const absl::StatusOr<T>& result, const std::string& field) {
  EXPECT_EQ(result.status().code(), absl::StatusCode::kInvalidArgument);
  EXPECT_THAT(std::string(result.status().message()), HasSubstr(field));
}

TEST(ConvertTest, EveryStatusCodeSurvives) {
  for (int code = 0; code <= 16; ++code) {
    const absl::Status status(static_cast<absl::StatusCode>(code), "why");
    EXPECT_EQ(FromWire(OverTheWire(ToWire(status))), status);
  }
  v1::Error unknown;
  unknown.set_code(77);
  EXPECT_EQ(FromWire(unknown).code(), absl::StatusCode::kUnknown);
  unknown.set_code(-1);
  EXPECT_EQ(FromWire(unknown).code(), absl::StatusCode::kUnknown);
}

TEST(ConvertTest, OpenRequestSurvives) {
  const OpenSessionRequest request = {.session_id = "s",
                                      .fingerprint = SomeFingerprint(),
                                      .stored_layers = {0, 31, 7},
                                      .durability = Durability::kDurable,
                                      .tenant = "somebody",
                                      .ttl_seconds = 60,
                                      .pinned = true,
                                      .prefix_hashes = SomeHashes(),
                                      .reuse_prefix = true};
  const auto read = FromWire(OverTheWire(ToWire(request)));
  ASSERT_TRUE(read.ok());
  EXPECT_EQ(read->session_id, request.session_id);
  EXPECT_EQ(read->fingerprint, request.fingerprint);
  EXPECT_EQ(read->stored_layers, request.stored_layers);
  EXPECT_EQ(read->durability, request.durability);
  EXPECT_EQ(read->tenant, request.tenant);
  EXPECT_EQ(read->ttl_seconds, request.ttl_seconds);
  EXPECT_EQ(read->pinned, request.pinned);
  EXPECT_EQ(read->prefix_hashes, request.prefix_hashes);
  EXPECT_EQ(read->reuse_prefix, request.reuse_prefix);
}

TEST(ConvertTest, OpenRequestsOfOlderClientsAskForMemory) {
  v1::OpenRequest request = ToWire(OpenSessionRequest{.fingerprint = SomeFingerprint()});
  request.clear_durability();
  const auto read = FromWire(request);
  ASSERT_TRUE(read.ok());
  EXPECT_EQ(read->durability, Durability::kMemory);
}

TEST(ConvertTest, HalfAPrefixHashAndUnknownDurabilitiesAreRefused) {
  v1::OpenRequest request = ToWire(OpenSessionRequest{.fingerprint = SomeFingerprint()});
  request.set_prefix_hashes(std::string(33, 'x'));
  ExpectInvalid(FromWire(request), "prefix_hashes");
  ExpectInvalid(PrefixHashesFromWire("x"), "prefix_hashes");
  request.clear_prefix_hashes();
  request.set_durability(static_cast<v1::Durability>(3));
  ExpectInvalid(FromWire(request), "durability");
  v1::ForkRequest fork;
  fork.set_durability(static_cast<v1::Durability>(-1));
  ExpectInvalid(FromWire(fork), "durability");
}

TEST(ConvertTest, ForkSurvives) {
  for (const std::optional<Durability> durability :
       {std::optional<Durability>(), std::optional(Durability::kMemory),
        std::optional(Durability::kDurable)}) {
    const v1::ForkRequest message =
        OverTheWire(ToWire("s", {.position = 7, .new_session_id = "t", .durability = durability}));
    EXPECT_EQ(message.session_id(), "s");
    const auto read = FromWire(message);
    ASSERT_TRUE(read.ok());
    EXPECT_EQ(read->position, 7);
    EXPECT_EQ(read->new_session_id, "t");
    EXPECT_EQ(read->durability, durability);
  }
}

TEST(ConvertTest, UnknownElementTypesAreRefused) {
  v1::OpenRequest request = ToWire(OpenSessionRequest{.fingerprint = SomeFingerprint()});
  for (const int type : {0, 4, -1}) {
    request.mutable_fingerprint()->set_element_type(static_cast<v1::ElementType>(type));
    ExpectInvalid(FromWire(request), "fingerprint.element_type");
  }
}

TEST(ConvertTest, RangesKeepTheirMeaning) {
  const PositionRange ranges[] = {{}, {.begin = 5}, {.begin = 5, .end = 9}, {.begin = 5, .end = 5}};
  for (const PositionRange& range : ranges) {
    EXPECT_EQ(FromWire(OverTheWire(ToWire(range))), range);
  }
  // The empty range at 0 must not come back as "everything".
  const PositionRange empty = FromWire(ToWire(PositionRange{.begin = 0, .end = 0}));
  EXPECT_EQ(empty.begin, empty.end);
  EXPECT_EQ(FromWire(v1::PositionRange()), PositionRange());
}

TEST(ConvertTest, SessionDescriptionSurvives) {
  const SessionDescription description = {.session_id = "s",
                                          .fingerprint = SomeFingerprint(),
                                          .layers = {{.layer = 3,
                                                      .watermark = 100,
                                                      .indexed_tokens = 64,
                                                      .tail_tokens = 36,
                                                      .durable_watermark = 80},
                                                     {}},
                                          .watermark = 100,
                                          .memory_bytes = 12345,
                                          .evicted_bytes = 777,
                                          .durability = Durability::kDurable,
                                          .durable_watermark = 70,
                                          .tenant = "somebody",
                                          .reused_tokens = 50,
                                          .ttl_seconds = 60,
                                          .lease_seconds_left = 59.5,
                                          .pinned = true,
                                          .created = true};
  const auto read = FromWire(OverTheWire(ToWire(description)));
  ASSERT_TRUE(read.ok());
  EXPECT_EQ(*read, description);
}

TEST(ConvertTest, PlanSurvives) {
  const HeadPlan plan{.layer = 3,
                      .kv_head = 2,
                      .indexed_tokens = 1 << 20,
                      .answers_measured = 320,
                      .scans_by_default = true,
                      .scan_faster_below = 0.1,
                      .least_error = 0.02,
                      .coverage_max = 0.5,
                      .hidden_mass = 0.25};
  const HeadPlan back = FromWire(ToWire(plan));
  EXPECT_EQ(back.layer, plan.layer);
  EXPECT_EQ(back.kv_head, plan.kv_head);
  EXPECT_EQ(back.indexed_tokens, plan.indexed_tokens);
  EXPECT_EQ(back.answers_measured, plan.answers_measured);
  EXPECT_EQ(back.scans_by_default, plan.scans_by_default);
  EXPECT_EQ(back.scan_faster_below, plan.scan_faster_below);
  EXPECT_EQ(back.least_error, plan.least_error);
  EXPECT_EQ(back.coverage_max, plan.coverage_max);
  EXPECT_EQ(back.hidden_mass, plan.hidden_mass);
}

TEST(ConvertTest, AppendBatchSurvives) {
  const auto keys = SomeBytes(96);
  const auto values = SomeBytes(48);
  const std::vector<float> sample = {1.0f, -2.5f, 3.0f};
  const AppendBatch batch = {.session_id = "s",
                             .layer = 2,
                             .begin_position = int64_t{1} << 33,
                             .count = 3,
                             .keys = keys,
                             .values = values,
                             .query_sample = sample};
  const v1::AppendRequest message = OverTheWire(ToWire(batch));
  std::vector<float> query_sample;
  const auto read = FromWire(message, query_sample);
  ASSERT_TRUE(read.ok());
  EXPECT_EQ(read->session_id, "s");
  EXPECT_EQ(read->layer, 2u);
  EXPECT_EQ(read->begin_position, int64_t{1} << 33);
  EXPECT_EQ(read->count, 3u);
  EXPECT_THAT(read->keys, ElementsAreArray(keys));
  EXPECT_THAT(read->values, ElementsAreArray(values));
  EXPECT_THAT(read->query_sample, ElementsAreArray(sample));
}

TEST(ConvertTest, AppendRefusesHalfAFloat) {
  v1::AppendRequest message;
  message.set_query_sample("12345");
  std::vector<float> query_sample;
  ExpectInvalid(FromWire(message, query_sample), "query_sample");
}

TEST(ConvertTest, AttendItemSurvives) {
  const std::vector<float> sent = {1.0f, 2.0f, -3.0f, 0.5f};
  const AttendItem item = {.session_id = "s",
                           .layer = 4,
                           .range = {.begin = 3, .end = 70},
                           .min_watermark = 60,
                           .mode = AttendMode::kExact,
                           .queries = sent};
  std::vector<float> queries;
  const auto read = FromWire(OverTheWire(ToWire(item)), 4, queries);
  ASSERT_TRUE(read.ok());
  EXPECT_EQ(read->session_id, "s");
  EXPECT_EQ(read->layer, 4u);
  EXPECT_EQ(read->range, item.range);
  EXPECT_EQ(read->min_watermark, 60);
  EXPECT_EQ(read->mode, AttendMode::kExact);
  EXPECT_THAT(read->queries, ElementsAreArray(sent));
}

TEST(ConvertTest, QueriesOfEveryElementTypeAreWidened) {
  const std::vector<float> sent = {1.0f, -2.0f, 0.25f};  // exact in every type
  for (const ElementType type :
       {ElementType::kFloat32, ElementType::kBFloat16, ElementType::kFloat16}) {
    std::vector<std::byte> bytes(sent.size() * ElementBytes(type));
    FromFloat32(sent, type, bytes.data());
    v1::AttendItem item;
    item.set_queries(bytes.data(), bytes.size());
    item.set_query_type(static_cast<v1::ElementType>(type));
    std::vector<float> queries;
    const auto read = FromWire(item, 0, queries);
    ASSERT_TRUE(read.ok());
    EXPECT_EQ(read->mode, AttendMode::kIndexed);
    EXPECT_THAT(read->queries, ElementsAreArray(sent));
    item.set_queries(std::string(bytes.size() - 1, 'x'));
    ExpectInvalid(FromWire(item, 0, queries), "queries");
  }
}

TEST(ConvertTest, UnknownModesAndQueryTypesAreRefused) {
  std::vector<float> queries;
  v1::AttendItem item;
  item.set_mode(static_cast<v1::AttendMode>(3));
  ExpectInvalid(FromWire(item, 0, queries), "mode");
  item.set_mode(v1::ATTEND_MODE_EXACT);
  item.set_query_type(static_cast<v1::ElementType>(9));
  ExpectInvalid(FromWire(item, 0, queries), "query_type");
  v1::SearchRequest search;
  search.set_mode(static_cast<v1::AttendMode>(-3));
  ExpectInvalid(FromWire(search, queries), "mode");
}

TEST(ConvertTest, AttendAnswerSurvives) {
  AttendAnswer answer;
  answer.output = {1, 2, 3, 4};
  answer.log_sum_exp = {kEmptyLogSumExp, 3.5f};
  answer.coverage = {1.0f, 0.5f};
  answer.estimated_error = {0.0f, 0.25f};
  answer.range = {.begin = 0, .end = 0};
  answer.degraded = true;
  answer.read = {1, 2, 3, 4, 5, 6, 7};
  const auto read = FromWire(OverTheWire(ToWire(answer)));
  ASSERT_TRUE(read.ok());
  EXPECT_TRUE(read->status.ok());
  EXPECT_EQ(read->output, answer.output);
  EXPECT_EQ(read->log_sum_exp, answer.log_sum_exp);
  EXPECT_EQ(read->coverage, answer.coverage);
  EXPECT_EQ(read->estimated_error, answer.estimated_error);
  EXPECT_EQ(read->range, answer.range);
  EXPECT_TRUE(read->degraded);
  EXPECT_EQ(read->read.bytes_read, 6u);
  EXPECT_EQ(read->read.disk_bytes_read, 7u);
  EXPECT_EQ(read->read.estimated_super_clusters, 4u);

  AttendAnswer failed = answer;
  failed.status = absl::NotFoundError("session_id");
  const auto error = FromWire(OverTheWire(ToWire(failed)));
  ASSERT_TRUE(error.ok());
  EXPECT_EQ(error->status, failed.status);
  EXPECT_TRUE(error->output.empty());
}

TEST(ConvertTest, AnswersThatDoNotFitAreRefused) {
  AttendAnswer answer;
  answer.output = {1, 2, 3, 4};
  answer.log_sum_exp = {0, 0};
  answer.coverage = {1, 1};
  answer.estimated_error = {0, 0};
  v1::AttendItemResponse message = ToWire(answer);
  message.add_coverage(1);
  ExpectInvalid(FromWire(message), "coverage");
  message = ToWire(answer);
  message.clear_estimated_error();
  ExpectInvalid(FromWire(message), "estimated_error");
  message = ToWire(answer);
  message.set_output(message.output().substr(4));
  ExpectInvalid(FromWire(message), "output");
  message.set_output("abc");
  ExpectInvalid(FromWire(message), "output");
  message.clear_log_sum_exp();
  message.clear_coverage();
  message.clear_estimated_error();
  message.set_output("abcd");
  ExpectInvalid(FromWire(message), "output");
}

TEST(ConvertTest, SearchSurvives) {
  const std::vector<float> sent = {1.0f, 2.0f};
  const SearchRequest request = {.session_id = "s",
                                 .layer = 1,
                                 .range = {.begin = 1, .end = 2},
                                 .mode = AttendMode::kExact,
                                 .k = 7,
                                 .with_vectors = true,
                                 .queries = sent};
  std::vector<float> queries;
  const auto read = FromWire(OverTheWire(ToWire(request)), queries);
  ASSERT_TRUE(read.ok());
  EXPECT_EQ(read->k, 7u);
  EXPECT_TRUE(read->with_vectors);
  EXPECT_EQ(read->range, request.range);
  EXPECT_THAT(read->queries, ElementsAreArray(sent));

  SearchAnswer answer;
  answer.hits = {{{.position = 5, .score = 2.0f}, {.position = 1, .score = 1.0f}}, {}};
  answer.keys = {SomeBytes(8), {}};
  answer.values = {SomeBytes(4), {}};
  const auto answered = FromWire(OverTheWire(ToWire(answer)));
  ASSERT_TRUE(answered.ok());
  ASSERT_EQ(answered->hits.size(), 2u);
  EXPECT_EQ(answered->hits[0][1].position, 1);
  EXPECT_EQ(answered->hits[0][0].score, 2.0f);
  EXPECT_EQ(answered->keys, answer.keys);
  EXPECT_EQ(answered->values, answer.values);

  v1::SearchResponse uneven = ToWire(answer);
  uneven.mutable_heads(0)->add_positions(1);
  ExpectInvalid(FromWire(uneven), "scores");
}

TEST(ConvertTest, StatusSurvives) {
  const StoreStatus status = {.version = "1",
                              .boot_id = "b",
                              .epoch = 3,
                              .sessions = 4,
                              .tokens = 5,
                              .pending_segments = 6,
                              .threads = 7,
                              .uptime_seconds = 8.5,
                              .vector_target = "AVX3",
                              .memory = {1, 2, 3, 4, 5, 100},
                              .damage = {{"a", "b"}, {"c", "d"}},
                              .disk_bytes = 9,
                              .cache_bytes = 10,
                              .cache_hits = 11,
                              .cache_misses = 12,
                              .recovering_sessions = 13,
                              .evicted_sessions = 14,
                              .memory_limit_bytes = 15,
                              .memory_charged_bytes = 16};
  const v1::StoreStatus message = OverTheWire(ToWire(status));
  const StoreStatus read = FromWire(message);
  EXPECT_TRUE(google::protobuf::util::MessageDifferencer::Equals(message, ToWire(read)));
  EXPECT_EQ(read.memory.total(), 15u);
  EXPECT_EQ(read.memory.evicted_bytes, 100u);
  EXPECT_EQ(read.damage, status.damage);
  EXPECT_EQ(read.disk_bytes, 9u);
  EXPECT_EQ(read.cache_bytes, 10u);
  EXPECT_EQ(read.cache_hits, 11u);
  EXPECT_EQ(read.cache_misses, 12u);
  EXPECT_EQ(read.recovering_sessions, 13u);
  EXPECT_EQ(read.evicted_sessions, 14u);
  EXPECT_EQ(read.memory_limit_bytes, 15u);
  EXPECT_EQ(read.memory_charged_bytes, 16u);
  EXPECT_EQ(read.uptime_seconds, 8.5);
}

// Whatever bytes arrive: an answer or an error, never a crash.
TEST(ConvertTest, DamagedMessagesAreSafe) {
  const google::protobuf::LogSilencer silencer;  // one line for each damaged string
  const uint64_t seed = std::random_device()();
  SCOPED_TRACE(seed);
  std::mt19937_64 random(seed);
  const std::vector<float> sent(16, 1.0f);
  const std::string good = ToWire(AttendItem{.session_id = "session",
                                             .selection = {SelectionGoal::kCoverage, 0.9},
                                             .queries = sent})
                               .SerializeAsString();
  for (int round = 0; round < 2000; ++round) {
    std::string damaged = good;
    for (int flips = 0; flips < 3; ++flips) {
      damaged[random() % damaged.size()] = static_cast<char>(random());
    }
    std::vector<float> numbers;
    if (v1::AttendItem item; item.ParseFromString(damaged)) (void)FromWire(item, 0, numbers);
    if (v1::AppendRequest r; r.ParseFromString(damaged)) (void)FromWire(r, numbers);
    if (v1::SearchRequest r; r.ParseFromString(damaged)) (void)FromWire(r, numbers);
    if (v1::OpenRequest r; r.ParseFromString(damaged)) (void)FromWire(r);
    if (v1::ForkRequest r; r.ParseFromString(damaged)) (void)FromWire(r);
    if (v1::AttendItemResponse r; r.ParseFromString(damaged)) (void)FromWire(r);
    if (v1::SearchResponse r; r.ParseFromString(damaged)) (void)FromWire(r);
  }
}

TEST(ConvertTest, SnapshotOptions) {
  for (const ExportOptions& options :
       {ExportOptions(), ExportOptions{.position = 0}, ExportOptions{.position = 7, .epoch = 3}}) {
    v1::ExportRequest request;
    ToWire(options, request);
    const ExportOptions read = FromWire(OverTheWire(request));
    EXPECT_EQ(read.position, options.position);
    EXPECT_EQ(read.epoch, options.epoch);
  }
  const Placement placement{.slot = 5,
                            .key = "k",
                            .replication = {.replicas = 2, .shard_tokens = 256},
                            .kv_head = 1,
                            .block = 3};
  for (const std::optional<Placement>& placed : {std::optional<Placement>(), {placement}}) {
    v1::SnapshotChunk chunk;
    ToWire(
        ImportOptions{
            .session_id = "a", .durability = Durability::kDurable, .epoch = 9, .placement = placed},
        chunk);
    const auto read = FromWire(OverTheWire(chunk));
    ASSERT_TRUE(read.ok()) << read.status();
    EXPECT_EQ(read->session_id, "a");
    EXPECT_EQ(read->durability, Durability::kDurable);
    EXPECT_EQ(read->epoch, 9);
    EXPECT_EQ(read->placement, placed);
  }
}

}  // namespace
}  // namespace attic::wire
