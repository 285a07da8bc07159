#include "server/storage/record_codec.h"

#include <alloca.h>
#include <gtest/gtest.h>
#include <xxhash.h>

#include <limits>
#include <random>
#include <string>
#include <vector>

namespace attic {
namespace {

SessionRecord SampleRecord() {
  SessionRecord record;
  record.key = 7;
  record.session_id = "a session";
  record.attributes = std::string("with \0 zeros", 12);
  record.stored_layers = {0, 5, 31};
  record.fingerprint = {.model_id = "model",
                        .revision = "main",
                        .layers = 32,
                        .q_heads = 32,
                        .kv_heads = 8,
                        .head_dim = 128,
                        .value_dim = 64,
                        .element_type = ElementType::kFloat16,
                        .logit_scale = 0.088f,
                        .position_encoding = "rope"};
  return record;
}

TEST(RecordCodec, SessionsComeBack) {
  const SessionRecord record = SampleRecord();
  const std::string key = SessionKey(record.key);
  const auto decoded = DecodeSession(key, EncodeSession(key, record));
  ASSERT_TRUE(decoded.ok()) << decoded.status();
  EXPECT_EQ(decoded->key, record.key);
  EXPECT_EQ(decoded->session_id, record.session_id);
  EXPECT_EQ(decoded->attributes, record.attributes);
  EXPECT_EQ(decoded->stored_layers, record.stored_layers);
  EXPECT_EQ(decoded->fingerprint, record.fingerprint);
}

TEST(RecordCodec, KeysAreInTheOrderOfTheirNumbers) {
  std::mt19937_64 random(1);
  for (int i = 0; i < 1000; ++i) {
    const uint64_t a = random() >> random() % 64, b = random() >> random() % 64;
    EXPECT_EQ(a < b, SessionKey(a) < SessionKey(b));
    const int64_t p = static_cast<int64_t>(a >> 1), q = static_cast<int64_t>(b >> 1);
    EXPECT_EQ(p < q, RowsKey(3, 4, p) < RowsKey(3, 4, q));
    EXPECT_EQ(KeyU64(RowsKey(a, 4, q), kLayerKeyBytes), static_cast<uint64_t>(q));
    EXPECT_EQ(KeyU32(RowsKey(a, 4, q), kSessionKeyBytes), 4u);
  }
}

TEST(RecordCodec, EndOfPrefixIsBehindAllWithIt) {
  EXPECT_EQ(EndOfPrefix(std::string("a\xff\xff", 3)), "b");
  EXPECT_EQ(EndOfPrefix("\xff\xff"), "");
  EXPECT_LT(RowsKey(5, 9, std::numeric_limits<int64_t>::max()), EndOfPrefix(LayerKey(5, 9)));
  EXPECT_LE(EndOfPrefix(LayerKey(5, 9)), LayerKey(5, 10));
}

// Every bit of a value and its key counts, and so does its kind and its length.
TEST(RecordCodec, AnyFlippedBitIsFound) {
  const SessionRecord record = SampleRecord();
  const std::string key = SessionKey(record.key);
  const std::string sealed = EncodeSession(key, record);
  for (size_t bit = 0; bit < 8 * sealed.size(); ++bit) {
    std::string flipped = sealed;
    flipped[bit / 8] = static_cast<char>(flipped[bit / 8] ^ (1 << bit % 8));
    EXPECT_EQ(DecodeSession(key, flipped).status().code(), absl::StatusCode::kDataLoss) << bit;
  }
  for (size_t bytes = 0; bytes < sealed.size(); ++bytes) {
    EXPECT_FALSE(DecodeSession(key, sealed.substr(0, bytes)).ok()) << bytes;
  }
  EXPECT_FALSE(DecodeSession(SessionKey(8), sealed).ok());
  EXPECT_FALSE(DecodeCounter(key, sealed).ok());
}

// What has the right checksum may still be nonsense: lengths are checked by themselves.
TEST(RecordCodec, CraftedValuesAreRefused) {
  std::mt19937 random(2);
  const std::string key = SessionKey(7);
  for (int i = 0; i < 20000; ++i) {
    RecordWriter writer;
    writer.U8(1);
    const int fields = static_cast<int>(random() % 40);
    for (int field = 0; field < fields; ++field) {
      writer.U32(random() % 4 == 0 ? random() : random() % 4);
    }
    const std::string sealed = std::move(writer).Seal(RecordKind::kSession, key);
    DecodeSession(key, sealed).status().IgnoreError();  // must not crash or allocate by length
  }
  RecordWriter writer;
  writer.U8(1);
  writer.U64(0);  // no rows
  for (int i = 0; i < 4; ++i) writer.U64(0);
  const std::string rows_key = RowsKey(1, 2, 3);
  EXPECT_FALSE(DecodeRows(rows_key, std::move(writer).Seal(RecordKind::kRows, rows_key)).ok());
}

// Writes over a part of what the last call left on the stack.
__attribute__((noinline)) void WriteOnStack(size_t bytes) {
  auto* left = static_cast<volatile char*>(alloca(bytes));
  for (size_t i = 0; i < bytes; ++i) left[i] = static_cast<char>(i);
}

TEST(RecordCodec, ChecksumsDependOnNothingButTheRecord) {
  const std::string key = SessionKey(2);
  std::string value(1000, 'x');
  for (size_t i = 0; i < value.size(); ++i) value[i] = static_cast<char>(i * 7);
  const uint64_t seed = static_cast<uint64_t>(RecordKind::kSession) << 32 | key.size();
  const std::string all = key + value;
  const uint64_t expected = XXH3_64bits_withSeed(all.data(), all.size(), seed);
  for (size_t bytes = 16; bytes < 2048; bytes += 16) {
    EXPECT_EQ(RecordChecksum(RecordKind::kSession, key, {value}), expected) << bytes;
    WriteOnStack(bytes);
  }
}

TEST(RecordCodec, RowsAreCheckedAgainstTheirHeader) {
  std::vector<std::byte> keys(40, std::byte{1}), values(20, std::byte{2});
  const std::vector<float> sample = {1.5f, 2.5f};
  const RowsRecord rows = {
      .begin_position = 3, .count = 10, .keys = keys, .values = values, .query_sample = sample};
  const std::string key = RowsKey(1, 2, 3);
  const RowsHeader header = HeaderOf(key, rows);
  const auto decoded = DecodeRows(key, EncodeRows(key, header));
  ASSERT_TRUE(decoded.ok()) << decoded.status();
  EXPECT_EQ(decoded->begin, 3);
  EXPECT_EQ(decoded->end(), 13);
  EXPECT_EQ(decoded->data_bytes(), 68u);
  std::string data(reinterpret_cast<const char*>(keys.data()), keys.size());
  data.append(reinterpret_cast<const char*>(values.data()), values.size());
  data.append(reinterpret_cast<const char*>(sample.data()), sample.size() * sizeof(float));
  EXPECT_TRUE(CheckRowsData(key, *decoded, data).ok());
  EXPECT_FALSE(CheckRowsData(RowsKey(1, 2, 4), *decoded, data).ok());
  data[50] ^= 1;
  EXPECT_FALSE(CheckRowsData(key, *decoded, data).ok());
}

}  // namespace
}  // namespace attic
