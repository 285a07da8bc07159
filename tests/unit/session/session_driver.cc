#include "tests/unit/session/session_driver.h"

#include <gtest/gtest.h>

#include <algorithm>

#include "absl/strings/str_cat.h"
#include "absl/time/clock.h"

namespace attic {
namespace {

constexpr size_t kSessionsMax = 8;
constexpr absl::Duration kPatience = absl::Seconds(60);

}  // namespace

SessionStoreOptions SmallOptions() {
  SessionStoreOptions options;
  options.threads = 2;
  options.build_threads = 1;
  options.index.segment_tokens = 256;
  options.index.exact_scan_tokens_max = 1024;
  options.index.centroid_graph = true;
  options.index.graph_clusters_min = 32;
  return options;
}

SessionDriver::SessionDriver(uint64_t seed, ElementType type, const SessionStoreOptions& options)
    : random_(seed), fingerprint_(SmallFingerprint(type)), layers_({0, 3}), options_(options) {
  auto opened = SessionStore::Open(options_);
  EXPECT_TRUE(opened.ok()) << opened.status().message();
  store_ = *std::move(opened);
}

void SessionDriver::WaitForBuilds() {
  const absl::Status built = store_->WaitForBuilds(absl::Now() + kPatience);
  ASSERT_TRUE(built.ok()) << built.message();
}

void SessionDriver::Reopen() {
  store_.reset();
  auto opened = SessionStore::Open(options_);
  ASSERT_TRUE(opened.ok()) << opened.status().message();
  store_ = *std::move(opened);
  std::erase_if(sessions_,
                [](const auto& entry) { return entry.second.durability == Durability::kMemory; });
  WaitForBuilds();
  EXPECT_EQ(store_->Status().sessions, sessions_.size());
  EXPECT_TRUE(store_->Status().damage.empty());
  for (const auto& [id, session] : sessions_) {
    const auto description = store_->DescribeSession(id);
    ASSERT_TRUE(description.ok()) << description.status().message();
    for (const LayerDescription& layer : description->layers) {
      EXPECT_EQ(layer.watermark, session.model.watermark(layer.layer)) << id;
      EXPECT_EQ(layer.durable_watermark, layer.watermark) << id;
    }
  }
}

void SessionDriver::Step() {
  const uint64_t kind = random_() % 100;
  if (sessions_.empty() || kind < 4) return Open();
  Choose();
  if (kind < 45) return Append();
  if (kind < 55) return AppendHeld();
  if (kind < 60) return AppendOther();
  if (kind < 64) return AppendGap();
  if (kind < 68) return Fork();
  if (kind < 74) return Truncate();
  if (kind < 75) return Close();
  if (kind < 78 && !options_.disk.store.directory.empty()) return Reopen();
  Attend();
}

void SessionDriver::Choose() {
  auto chosen = sessions_.begin();
  std::advance(chosen, static_cast<int64_t>(random_() % sessions_.size()));
  id_ = chosen->first;
  layer_ = layers_[random_() % layers_.size()];
}

int64_t SessionDriver::Below(int64_t bound) {
  return bound <= 0 ? 0 : static_cast<int64_t>(random_() % static_cast<uint64_t>(bound));
}

void SessionDriver::Open() {
  if (sessions_.size() >= 6) return;
  id_ = absl::StrCat("s", next_id_++);
  const bool durable = !options_.disk.store.directory.empty() && random_() % 2 == 0;
  const Durability durability = durable ? Durability::kDurable : Durability::kMemory;
  const auto opened = store_->OpenSession({.session_id = id_,
                                           .fingerprint = fingerprint_,
                                           .stored_layers = layers_,
                                           .durability = durability});
  ASSERT_TRUE(opened.ok()) << opened.status().message();
  sessions_.emplace(id_, ModelledSession{SessionModel(fingerprint_, layers_), durability});
}

absl::StatusOr<AppendAck> SessionDriver::Send(const Tokens& tokens, int64_t begin) {
  AppendBatch batch = tokens.Batch(id_, layer_, begin);
  const std::vector<float> sample =
      RandomFloats(2 * fingerprint_.q_heads * fingerprint_.head_dim, random_);
  if (random_() % 2 == 0) batch.query_sample = sample;
  return store_->Append(batch, absl::Now() + absl::Seconds(30));
}

void SessionDriver::Append() {
  const int64_t watermark = model().watermark(layer_);
  const int64_t overlap = std::min(watermark, random_() % 4 == 0 ? Below(40) : 0);
  const Tokens added = Tokens::Random(fingerprint_, 1 + random_() % 300, random_);
  Tokens sent = model().Held(layer_, watermark - overlap, watermark);
  sent.count += added.count;
  sent.keys.insert(sent.keys.end(), added.keys.begin(), added.keys.end());
  sent.values.insert(sent.values.end(), added.values.begin(), added.values.end());
  const auto ack = Send(sent, watermark - overlap);
  ASSERT_TRUE(ack.ok()) << ack.status().message();
  model().Append(layer_, added);
  EXPECT_EQ(ack->watermark, model().watermark(layer_));
}

void SessionDriver::AppendHeld() {
  const int64_t watermark = model().watermark(layer_);
  if (watermark == 0) return;
  const int64_t begin = Below(watermark);
  const int64_t end = begin + 1 + Below(std::min<int64_t>(watermark - begin, 200));
  const auto ack = Send(model().Held(layer_, begin, end), begin);
  ASSERT_TRUE(ack.ok()) << ack.status().message();
  EXPECT_EQ(ack->watermark, watermark);
}

void SessionDriver::AppendOther() {
  const int64_t watermark = model().watermark(layer_);
  if (watermark == 0) return;
  const int64_t begin = Below(watermark);
  Tokens sent = Tokens::Random(fingerprint_, 1 + random_() % 50, random_);
  const auto ack = Send(sent, begin);
  EXPECT_EQ(ack.status().code(), absl::StatusCode::kAlreadyExists);
}

void SessionDriver::AppendGap() {
  const int64_t watermark = model().watermark(layer_);
  const auto ack = Send(Tokens::Random(fingerprint_, 3, random_), watermark + 1 + Below(9));
  EXPECT_EQ(ack.status().code(), absl::StatusCode::kOutOfRange);
}

void SessionDriver::Fork() {
  const int64_t position = Below(model().lowest_watermark() + 20);
  const std::string new_id = absl::StrCat("f", next_id_++);
  const auto fork = store_->ForkSession(id_, {.position = position, .new_session_id = new_id});
  if (position > model().lowest_watermark()) {
    EXPECT_EQ(fork.status().code(), absl::StatusCode::kOutOfRange);
    EXPECT_FALSE(store_->DescribeSession(new_id).ok());
    return;
  }
  ASSERT_TRUE(fork.ok()) << fork.status().message();
  EXPECT_EQ(fork->watermark, position);
  SessionModel copy = model();
  copy.Truncate(position);
  if (sessions_.size() < kSessionsMax) {
    sessions_.emplace(new_id, ModelledSession{std::move(copy), sessions_.at(id_).durability});
  } else {
    EXPECT_TRUE(store_->CloseSession(new_id).ok());
  }
}

void SessionDriver::Truncate() {
  const int64_t highest = model().highest_watermark();
  const int64_t position = std::max<int64_t>(0, highest + 10 - Below(500));
  const auto truncated = store_->TruncateSession(id_, position);
  if (position > highest) {
    EXPECT_EQ(truncated.status().code(), absl::StatusCode::kOutOfRange);
    return;
  }
  ASSERT_TRUE(truncated.ok()) << truncated.status().message();
  model().Truncate(position);
  EXPECT_EQ(truncated->watermark, model().lowest_watermark());
}

void SessionDriver::Close() {
  EXPECT_TRUE(store_->CloseSession(id_).ok());
  EXPECT_EQ(store_->CloseSession(id_).code(), absl::StatusCode::kNotFound);
  sessions_.erase(id_);
}

void SessionDriver::Attend() {
  const std::vector<float> queries =
      RandomFloats(fingerprint_.q_heads * fingerprint_.head_dim, random_);
  AttendItem item = {.session_id = id_, .layer = layer_, .queries = queries};
  item.mode = random_() % 2 == 0 ? AttendMode::kExact : AttendMode::kIndexed;
  const int64_t watermark = model().watermark(layer_);
  if (random_() % 2 == 0) {
    item.range.begin = Below(watermark + 5);
    item.range.end = item.range.begin + Below(watermark + 10);
  }
  const auto answers = store_->Attend({&item, 1}, absl::InfiniteFuture());
  ASSERT_TRUE(answers.ok());
  ASSERT_EQ(answers->size(), 1u);
  const AttendAnswer& answer = answers->front();
  ASSERT_TRUE(answer.status.ok()) << answer.status.message();
  EXPECT_EQ(answer.range.end, std::min(item.range.end, watermark));
  EXPECT_EQ(answer.range.begin, std::min(item.range.begin, answer.range.end));
  Compare(answer, item);
}

void SessionDriver::Compare(const AttendAnswer& answer, const AttendItem& item) {
  const auto expected = model().Attend(layer_, item.queries, answer.range.begin, answer.range.end);
  const int64_t tokens = answer.range.end - answer.range.begin;
  ASSERT_EQ(answer.log_sum_exp.size(), expected.log_sum_exp.size());
  if (tokens == 0) {
    for (const float lse : answer.log_sum_exp) EXPECT_EQ(lse, kEmptyLogSumExp);
    return;
  }
  // Estimation over random keys is rough; the store's part is that every token counts.
  const bool exact = item.mode == AttendMode::kExact || tokens <= 1024;
  const double tolerance = exact ? 2e-4 : 0.1;
  for (size_t q = 0; q < expected.log_sum_exp.size(); ++q) {
    ASSERT_NEAR(answer.log_sum_exp[q], expected.log_sum_exp[q], tolerance);
    EXPECT_GE(answer.coverage[q], 0.0f);
    EXPECT_LE(answer.coverage[q], 1.0f);
    EXPECT_GE(answer.estimated_error[q], 0.0f);
  }
  if (!exact) return;
  EXPECT_EQ(answer.read.tokens, static_cast<uint64_t>(tokens) * fingerprint_.kv_heads);
  for (size_t i = 0; i < expected.output.size(); ++i) {
    ASSERT_NEAR(answer.output[i], expected.output[i], 2e-4);
  }
}

}  // namespace attic
