#include "tests/fault/store_content.h"

#include <utility>

#include "absl/strings/str_cat.h"
#include "base/check.h"
#include "tests/unit/storage/sample_segment.h"
#include "xxhash.h"

namespace attic {

uint64_t HashOf(const void* data, size_t bytes) { return XXH3_64bits(data, bytes); }

PieceContent::PieceContent(const Fingerprint& fingerprint, int64_t begin, uint64_t count,
                           uint32_t seed)
    : begin_(begin),
      count_(count),
      key_bytes_(size_t{2} * fingerprint.kv_heads * fingerprint.head_dim),
      value_bytes_(size_t{2} * fingerprint.kv_heads * fingerprint.value_dim),
      keys_(count * key_bytes_),
      values_(count * value_bytes_),
      query_sample_(seed % 3 * fingerprint.q_heads * fingerprint.head_dim) {
  std::minstd_rand random(seed);
  for (std::byte& byte : keys_) byte = static_cast<std::byte>(random());
  for (std::byte& byte : values_) byte = static_cast<std::byte>(random());
  for (float& value : query_sample_) value = static_cast<float>(random());
}

RowsRecord PieceContent::From(int64_t begin) const {
  const size_t skipped = static_cast<size_t>(begin - begin_);
  ATTIC_CHECK(begin >= begin_ && skipped < count_);
  return {.begin_position = begin,
          .count = count_ - skipped,
          .keys = std::span(keys_).subspan(skipped * key_bytes_),
          .values = std::span(values_).subspan(skipped * value_bytes_),
          .query_sample = query_sample_};
}

SegmentContent::SegmentContent(int64_t begin, uint32_t seed) {
  SampleSegment sample = HandMadeSegment();
  segment = std::move(*sample.segment);
  vectors = std::move(sample.vectors);
  ATTIC_CHECK(segment.tokens == kSegmentTokens);
  segment.begin_position = begin;
  segment.value_scatter = seed;
  std::minstd_rand random(seed);
  for (std::byte& byte : vectors.keys) byte ^= static_cast<std::byte>(random() % 4);
  for (std::byte& byte : vectors.values) byte ^= static_cast<std::byte>(random() % 4);
}

DurableStoreOptions SmallStore(const std::string& directory,
                               std::shared_ptr<rocksdb::FileSystem> file_system) {
  DurableStoreOptions options;
  options.directory = directory;
  options.file_system = std::move(file_system);
  options.cache = {.bytes_max = 1u << 20, .read_threads = 1};
  options.rows_buffer_bytes = 64u << 10;
  return options;
}

SessionRecord RandomRecord(std::mt19937& random) {
  SessionRecord record;
  record.attributes = absl::StrCat("attributes ", random() % 1000);
  Fingerprint& fingerprint = record.fingerprint;
  fingerprint.model_id = absl::StrCat("model-", random() % 10);
  fingerprint.revision = "main";
  fingerprint.layers = 4;
  fingerprint.kv_heads = 1 + random() % 2;
  fingerprint.q_heads = 2 * fingerprint.kv_heads;
  fingerprint.head_dim = 5;
  fingerprint.value_dim = 3;
  fingerprint.element_type = ElementType::kBFloat16;
  fingerprint.logit_scale = 0.125f;
  fingerprint.position_encoding = "none";
  record.stored_layers = random() % 2 == 0 ? std::vector<uint32_t>{1} : std::vector<uint32_t>{0, 3};
  return record;
}

}  // namespace attic
