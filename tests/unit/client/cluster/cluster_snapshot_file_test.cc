// The file of a cluster's session: whole, damaged and forged.
#include "client/cpp/cluster/cluster_snapshot_file.h"

#include <gtest/gtest.h>

#include <random>

#include "absl/strings/str_cat.h"
#include "api/snapshot_frames.h"
#include "client/cpp/cluster/snapshot_layout.h"
#include "tests/unit/client/client_test_data.h"

namespace attic {
namespace {

// Writes down what it visits.
class Recorder final : public ClusterSnapshotVisitor {
 public:
  absl::Status OnSession(const SessionDescription& session) override {
    log = session.session_id;
    return absl::OkStatus();
  }
  absl::Status OnShard(const ShardId& shard) override {
    shard_log = absl::StrCat("|", ShardSessionId("", shard), "=");
    return absl::OkStatus();
  }
  absl::Status OnBytes(std::string_view bytes) override {
    shard_log.append(bytes);
    return absl::OkStatus();
  }
  absl::Status OnShardEnd() override {
    log += shard_log;
    return absl::OkStatus();
  }

  std::string log;
  std::string shard_log;
};

SessionDescription Described(std::vector<LayerDescription> layers, int64_t shard_tokens = 0) {
  return {.session_id = "a",
          .fingerprint = TestFingerprint(),
          .layers = std::move(layers),
          .placement =
              Placement{.key = "a", .replication = {.replicas = 2, .shard_tokens = shard_tokens}}};
}

class ClusterSnapshotFileTest : public ::testing::Test {
 protected:
  void SetUp() override {
    const auto seed = std::random_device()();
    std::printf("seed %u\n", seed);
    random_.seed(seed);
  }

  std::string RandomBytes(size_t size_max) {
    std::string bytes(random_() % (size_max + 1), '\0');
    for (char& byte : bytes) byte = static_cast<char>(random_());
    return bytes;
  }

  // A file of some shards, and in `log` what is to be read of it.
  std::string RandomFile(size_t bytes_max, std::string& log) {
    ClusterSnapshotWriter writer(random_());
    std::string file = writer.Begin(Described({{.layer = 1}}));
    log = "a";
    for (uint32_t head = 0; head < 3; ++head) {
      const ShardId shard{
          .layer = 1, .kv_head = head, .block = static_cast<uint32_t>(random_() % 3)};
      std::string content;
      for (int attempts = 1 + static_cast<int>(random_() % 3); attempts > 0; --attempts) {
        file += writer.StartShard(shard);
        content.clear();
        for (int pieces = static_cast<int>(random_() % 4); pieces > 0; --pieces) {
          const std::string bytes = RandomBytes(bytes_max);
          file += writer.Bytes(bytes);
          content += bytes;
        }
      }
      file += writer.EndShard();
      log += absl::StrCat("|", ShardSessionId("", shard), "=", content);
    }
    return file + writer.End();
  }

  absl::Status Read(std::string_view file, Recorder& recorder) {
    ClusterSnapshotReader reader(recorder);
    while (!file.empty()) {
      const size_t piece = std::min<size_t>(file.size(), 1 + random_() % 300);
      if (const absl::Status read = reader.Read(file.substr(0, piece)); !read.ok()) return read;
      file.remove_prefix(piece);
    }
    return reader.Finish();
  }

  std::mt19937_64 random_;
};

TEST_F(ClusterSnapshotFileTest, IsReadAsItWasWritten) {
  for (int round = 0; round < 200; ++round) {
    std::string log;
    const std::string file = RandomFile(round % 20 == 0 ? kClusterFramePayloadMax : 200, log);
    Recorder recorder;
    ASSERT_EQ(Read(file, recorder), absl::OkStatus());
    EXPECT_EQ(recorder.log, log);
  }
}

TEST_F(ClusterSnapshotFileTest, DamageIsFoundWhereverItIs) {
  std::string log;
  const std::string file = RandomFile(100, log);
  for (size_t at = 0; at < file.size(); ++at) {
    std::string damaged = file;
    damaged[at] = static_cast<char>(damaged[at] ^ (1 << (random_() % 8)));
    Recorder recorder;
    const absl::Status status = Read(damaged, recorder);
    EXPECT_TRUE(absl::IsDataLoss(status)) << at << ": " << status;
    Recorder cut;
    EXPECT_TRUE(absl::IsDataLoss(Read(std::string_view(file).substr(0, at), cut))) << at;
  }
  Recorder longer;
  EXPECT_TRUE(absl::IsDataLoss(Read(file + "x", longer)));
}

TEST_F(ClusterSnapshotFileTest, FramesInAnotherOrderAreRefused) {
  ClusterSnapshotWriter writer(7);
  const std::string begin = writer.Begin(Described({{.layer = 1}}));
  std::string first = writer.StartShard({.layer = 1});
  first += writer.EndShard();
  std::string second = writer.StartShard({.layer = 1, .kv_head = 1});
  second += writer.EndShard();
  const std::string end = writer.End();
  Recorder recorder;
  EXPECT_EQ(Read(begin + first + second + end, recorder), absl::OkStatus());
  for (const std::string& file : {begin + second + first + end, begin + first + end,
                                  begin + begin + first + second + end, first + second + end}) {
    EXPECT_TRUE(absl::IsDataLoss(Read(file, recorder)));
  }
}

// Checksums are right, what they cover is not.
TEST_F(ClusterSnapshotFileTest, ForgedFramesAreRefused) {
  size_t refused = 0;
  for (int round = 0; round < 5000; ++round) {
    const uint64_t identity = random_();
    std::string file = EncodeClusterSnapshotHeader(identity);
    if (random_() % 2 == 0) {
      file = ClusterSnapshotWriter(identity).Begin(Described({{.layer = 1}}));
    }
    uint64_t number = file.size() > kSnapshotHeaderBytes ? 1 : 0;
    for (int frames = 1 + static_cast<int>(random_() % 4); frames > 0; --frames) {
      const std::string payload = RandomBytes(40);
      file += EncodeClusterFrame(identity,
                                 {.kind = static_cast<ClusterFrameKind>(1 + random_() % 5),
                                  .shard = {.layer = static_cast<uint32_t>(random_() % 2)},
                                  .number = number++,
                                  .payload_bytes = static_cast<uint32_t>(payload.size())},
                                 payload);
    }
    Recorder recorder;
    if (absl::IsDataLoss(Read(file, recorder))) ++refused;
  }
  EXPECT_EQ(refused, 5000);
}

TEST_F(ClusterSnapshotFileTest, OtherFilesAreNamed) {
  Recorder recorder;
  std::string store(kStoreSnapshotMagic);
  store.resize(kSnapshotHeaderBytes, '\0');
  EXPECT_TRUE(absl::IsFailedPrecondition(Read(store, recorder)));
  EXPECT_TRUE(absl::IsDataLoss(Read(std::string(500, 'x'), recorder)));
  EXPECT_TRUE(absl::IsDataLoss(Read("", recorder)));
}

TEST_F(ClusterSnapshotFileTest, TheLayoutIsThatOfEveryPosition) {
  for (int round = 0; round < 300; ++round) {
    const int64_t tokens = random_() % 2 == 0 ? 0 : 256 * (1 + static_cast<int64_t>(random_() % 3));
    std::vector<LayerDescription> layers;
    for (const uint32_t layer : {0, 1, 3}) {
      if (!layers.empty() && random_() % 2 == 0) continue;
      layers.push_back({.layer = layer, .watermark = static_cast<int64_t>(random_() % 2000)});
    }
    const SessionDescription session = Described(layers, tokens);
    const auto info = SessionInfoOf(session);
    ASSERT_TRUE(info.ok());
    auto layout = SnapshotLayout::Make(*info, session, Limits());
    ASSERT_TRUE(layout.ok()) << layout.status();
    std::vector<SnapshotShard> want;
    for (const LayerDescription& one : layers) {
      for (const BlockStretch& stretch : BlocksOf(tokens, {.begin = 0, .end = one.watermark})) {
        for (uint32_t head = 0; head < 2; ++head) {
          want.push_back({.shard = {.layer = one.layer, .kv_head = head, .block = stretch.block},
                          .positions = stretch.local().end});
        }
      }
    }
    EXPECT_EQ(layout->size(), want.size());
    EXPECT_EQ(layout->Take(100000), want);
    EXPECT_TRUE(layout->AtEnd());
  }
}

TEST_F(ClusterSnapshotFileTest, SessionsThatCannotBeAreRefused) {
  const auto make = [](const SessionDescription& session) {
    const auto info = SessionInfoOf(session);
    return info.ok() ? SnapshotLayout::Make(*info, session, Limits()).status() : info.status();
  };
  EXPECT_EQ(make(Described({{.layer = 1}})), absl::OkStatus());
  EXPECT_TRUE(absl::IsDataLoss(make(Described({{.layer = 1, .watermark = -1}}))));
  EXPECT_TRUE(absl::IsDataLoss(make(Described({{.layer = 4}}))));
  EXPECT_TRUE(absl::IsDataLoss(make(Described({{.layer = 1}, {.layer = 1}}))));
  EXPECT_TRUE(absl::IsDataLoss(make(Described({{.layer = 3}, {.layer = 1}}))));
  EXPECT_TRUE(absl::IsResourceExhausted(
      make(Described({{.layer = 1, .watermark = std::numeric_limits<int64_t>::max()}}))));
  EXPECT_TRUE(absl::IsResourceExhausted(
      make(Described({{.layer = 1, .watermark = int64_t{1} << 32}}, 256))));
  EXPECT_FALSE(make(Described({})).ok());
}

}  // namespace
}  // namespace attic
