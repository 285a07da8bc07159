#include "server/storage/record_codec.h"

#include <bit>
#include <cstring>
#include <limits>
#include <utility>

#include "absl/strings/escaping.h"
#include "absl/strings/str_cat.h"
#include "base/check.h"
#include "base/status_macros.h"
// XXH3_state_t on the stack.
#define XXH_STATIC_LINKING_ONLY
#include "xxhash.h"

namespace attic {
namespace {

// First byte of every value. Raised when the form of one changes.
constexpr uint8_t kForm = 1;

constexpr uint64_t kPositionMax = static_cast<uint64_t>(std::numeric_limits<int64_t>::max());

void AppendBigEndian(std::string& key, uint64_t value, size_t bytes) {
  for (size_t i = bytes; i-- > 0;) key.push_back(static_cast<char>(value >> (8 * i)));
}

uint64_t BigEndian(std::string_view key, size_t offset, size_t bytes) {
  ATTIC_CHECK(offset + bytes <= key.size());
  uint64_t value = 0;
  for (size_t i = 0; i < bytes; ++i) {
    value = value << 8 | static_cast<uint8_t>(key[offset + i]);
  }
  return value;
}

absl::Status Damaged(const char* what, std::string_view key) {
  return absl::DataLossError(absl::StrCat(
      "records/: the record of ", what, " under key ",
      absl::BytesToHexString(absl::string_view(key.data(), key.size())), " is damaged"));
}

// The reader of a value that is whole, behind its form.
std::optional<RecordReader> Open(RecordKind kind, size_t key_bytes, std::string_view key,
                                 std::string_view sealed) {
  if (key_bytes != 0 && key.size() != key_bytes) return std::nullopt;
  const std::optional<std::string_view> value = Unseal(kind, key, sealed);
  if (!value) return std::nullopt;
  RecordReader reader(*value);
  if (reader.U8() != kForm) return std::nullopt;
  return reader;
}

RecordWriter Begin() {
  RecordWriter writer;
  writer.U8(kForm);
  return writer;
}

std::string_view Bytes(const void* data, size_t bytes) {
  return {static_cast<const char*>(data), bytes};
}

}  // namespace

void RecordWriter::Number(uint64_t value, size_t bytes) {
  for (size_t i = 0; i < bytes; ++i) bytes_.push_back(static_cast<char>(value >> (8 * i)));
}

void RecordWriter::F32(float value) { U32(std::bit_cast<uint32_t>(value)); }

void RecordWriter::String(std::string_view value) {
  ATTIC_CHECK(value.size() <= std::numeric_limits<uint32_t>::max());
  U32(static_cast<uint32_t>(value.size()));
  bytes_.append(value);
}

std::string RecordWriter::Seal(RecordKind kind, std::string_view key) && {
  U64(RecordChecksum(kind, key, {bytes_}));
  return std::move(bytes_);
}

uint64_t RecordReader::Number(size_t bytes) {
  if (rest_.size() < bytes) {
    ok_ = false;
    rest_ = {};
    return 0;
  }
  uint64_t value = 0;
  for (size_t i = 0; i < bytes; ++i) {
    value |= static_cast<uint64_t>(static_cast<uint8_t>(rest_[i])) << (8 * i);
  }
  rest_.remove_prefix(bytes);
  return value;
}

float RecordReader::F32() { return std::bit_cast<float>(U32()); }

std::string RecordReader::String() {
  const uint32_t bytes = U32();
  if (rest_.size() < bytes) {
    ok_ = false;
    rest_ = {};
    return {};
  }
  std::string value(rest_.substr(0, bytes));
  rest_.remove_prefix(bytes);
  return value;
}

std::optional<std::string_view> Unseal(RecordKind kind, std::string_view key,
                                       std::string_view sealed) {
  if (sealed.size() < sizeof(uint64_t)) return std::nullopt;
  const std::string_view value = sealed.substr(0, sealed.size() - sizeof(uint64_t));
  RecordReader checksum(sealed.substr(value.size()));
  if (checksum.U64() != RecordChecksum(kind, key, {value})) return std::nullopt;
  return value;
}

uint64_t RecordChecksum(RecordKind kind, std::string_view key,
                        std::initializer_list<std::string_view> parts) {
  XXH3_state_t state;
  XXH3_INITSTATE(&state);  // a seed left on the stack would pass for one that was prepared
  // The length of the key in the seed: no byte can move from the key into the value unseen.
  XXH3_64bits_reset_withSeed(&state, static_cast<uint64_t>(kind) << 32 | key.size());
  XXH3_64bits_update(&state, key.data(), key.size());
  for (std::string_view part : parts) {
    if (!part.empty()) XXH3_64bits_update(&state, part.data(), part.size());
  }
  return XXH3_64bits_digest(&state);
}

std::string SessionKey(uint64_t session_key) {
  std::string key;
  AppendBigEndian(key, session_key, 8);
  return key;
}

std::string LayerKey(uint64_t session_key, uint32_t layer) {
  std::string key = SessionKey(session_key);
  AppendBigEndian(key, layer, 4);
  return key;
}

std::string RowsKey(uint64_t session_key, uint32_t layer, int64_t begin) {
  std::string key = LayerKey(session_key, layer);
  AppendBigEndian(key, static_cast<uint64_t>(begin), 8);
  return key;
}

std::string RowsDataKey(std::string_view rows_key, uint64_t data_checksum) {
  std::string key(rows_key);
  AppendBigEndian(key, data_checksum, 8);
  return key;
}

std::string HeadKey(const HeadName& head) {
  std::string key = LayerKey(head.session_key, head.layer);
  AppendBigEndian(key, head.kv_head, 4);
  return key;
}

std::string SegmentKey(const HeadName& head, int64_t begin) {
  std::string key = HeadKey(head);
  AppendBigEndian(key, static_cast<uint64_t>(begin), 8);
  return key;
}

std::string EndOfPrefix(std::string prefix) {
  while (!prefix.empty() && static_cast<uint8_t>(prefix.back()) == 0xff) prefix.pop_back();
  if (!prefix.empty()) prefix.back() = static_cast<char>(static_cast<uint8_t>(prefix.back()) + 1);
  return prefix;
}

uint32_t KeyU32(std::string_view key, size_t offset) {
  return static_cast<uint32_t>(BigEndian(key, offset, 4));
}

uint64_t KeyU64(std::string_view key, size_t offset) { return BigEndian(key, offset, 8); }

std::string EncodeCounter(std::string_view key, uint64_t value) {
  RecordWriter writer = Begin();
  writer.U64(value);
  return std::move(writer).Seal(RecordKind::kCounter, key);
}

absl::StatusOr<uint64_t> DecodeCounter(std::string_view key, std::string_view sealed) {
  std::optional<RecordReader> reader = Open(RecordKind::kCounter, 0, key, sealed);
  if (!reader) return Damaged("a counter", key);
  const uint64_t value = reader->U64();
  if (!reader->Done()) return Damaged("a counter", key);
  return value;
}

std::string EncodeSession(std::string_view key, const SessionRecord& record) {
  const Fingerprint& fingerprint = record.fingerprint;
  RecordWriter writer = Begin();
  writer.String(record.session_id);
  writer.String(fingerprint.model_id);
  writer.String(fingerprint.revision);
  writer.String(fingerprint.position_encoding);
  writer.U32(fingerprint.layers);
  writer.U32(fingerprint.q_heads);
  writer.U32(fingerprint.kv_heads);
  writer.U32(fingerprint.head_dim);
  writer.U32(fingerprint.value_dim);
  writer.U8(static_cast<uint8_t>(fingerprint.element_type));
  writer.F32(fingerprint.logit_scale);
  writer.U32(static_cast<uint32_t>(record.stored_layers.size()));
  for (uint32_t layer : record.stored_layers) writer.U32(layer);
  writer.String(record.attributes);
  return std::move(writer).Seal(RecordKind::kSession, key);
}

absl::StatusOr<SessionRecord> DecodeSession(std::string_view key, std::string_view sealed) {
  std::optional<RecordReader> reader = Open(RecordKind::kSession, kSessionKeyBytes, key, sealed);
  if (!reader) return Damaged("a session", key);
  SessionRecord record;
  record.key = KeyU64(key, 0);
  Fingerprint& fingerprint = record.fingerprint;
  record.session_id = reader->String();
  fingerprint.model_id = reader->String();
  fingerprint.revision = reader->String();
  fingerprint.position_encoding = reader->String();
  fingerprint.layers = reader->U32();
  fingerprint.q_heads = reader->U32();
  fingerprint.kv_heads = reader->U32();
  fingerprint.head_dim = reader->U32();
  fingerprint.value_dim = reader->U32();
  const uint8_t element_type = reader->U8();
  if (element_type < static_cast<uint8_t>(ElementType::kFloat32) ||
      element_type > static_cast<uint8_t>(ElementType::kFloat16)) {
    return Damaged("a session", key);
  }
  fingerprint.element_type = static_cast<ElementType>(element_type);
  fingerprint.logit_scale = reader->F32();
  const uint32_t layers = reader->U32();
  if (reader->left() / sizeof(uint32_t) < layers) return Damaged("a session", key);
  record.stored_layers.resize(layers);
  for (uint32_t& layer : record.stored_layers) layer = reader->U32();
  record.attributes = reader->String();
  if (!reader->Done()) return Damaged("a session", key);
  return record;
}

std::string EncodeSegment(std::string_view key, const SegmentEntry& entry) {
  RecordWriter writer = Begin();
  writer.U64(entry.reference.file);
  writer.I64(entry.reference.tokens);
  writer.U64(entry.identity);
  return std::move(writer).Seal(RecordKind::kSegment, key);
}

absl::StatusOr<SegmentEntry> DecodeSegment(std::string_view key, std::string_view sealed) {
  std::optional<RecordReader> reader = Open(RecordKind::kSegment, kSegmentKeyBytes, key, sealed);
  if (!reader) return Damaged("a segment", key);
  SegmentEntry entry;
  const uint64_t begin = KeyU64(key, kHeadKeyBytes);
  entry.reference.file = reader->U64();
  const uint64_t tokens = reader->U64();
  entry.identity = reader->U64();
  if (!reader->Done() || begin > kPositionMax || tokens == 0 || tokens > kPositionMax - begin) {
    return Damaged("a segment", key);
  }
  entry.reference.begin_position = static_cast<int64_t>(begin);
  entry.reference.tokens = static_cast<int64_t>(tokens);
  return entry;
}

std::string EncodeHeadState(std::string_view key, const std::string& state) {
  RecordWriter writer = Begin();
  writer.String(state);
  return std::move(writer).Seal(RecordKind::kHeadState, key);
}

absl::StatusOr<std::string> DecodeHeadState(std::string_view key, std::string_view sealed) {
  std::optional<RecordReader> reader = Open(RecordKind::kHeadState, kHeadKeyBytes, key, sealed);
  if (!reader) return Damaged("a head", key);
  std::string state = reader->String();
  if (!reader->Done()) return Damaged("a head", key);
  return state;
}

RowsHeader HeaderOf(std::string_view key, const RowsRecord& rows) {
  RowsHeader header;
  header.begin = rows.begin_position;
  header.count = rows.count;
  header.keys_bytes = rows.keys.size();
  header.values_bytes = rows.values.size();
  header.sample_floats = rows.query_sample.size();
  header.data_checksum = RecordChecksum(
      RecordKind::kRowsData, key,
      {Bytes(rows.keys.data(), rows.keys.size()), Bytes(rows.values.data(), rows.values.size()),
       Bytes(rows.query_sample.data(), rows.query_sample.size_bytes())});
  return header;
}

std::string EncodeRows(std::string_view key, const RowsHeader& header) {
  RecordWriter writer = Begin();
  writer.U64(header.count);
  writer.U64(header.keys_bytes);
  writer.U64(header.values_bytes);
  writer.U64(header.sample_floats);
  writer.U64(header.data_checksum);
  return std::move(writer).Seal(RecordKind::kRows, key);
}

absl::StatusOr<RowsHeader> DecodeRows(std::string_view key, std::string_view sealed) {
  std::optional<RecordReader> reader = Open(RecordKind::kRows, kRowsKeyBytes, key, sealed);
  if (!reader) return Damaged("rows", key);
  RowsHeader header;
  const uint64_t begin = KeyU64(key, kLayerKeyBytes);
  header.count = reader->U64();
  header.keys_bytes = reader->U64();
  header.values_bytes = reader->U64();
  header.sample_floats = reader->U64();
  header.data_checksum = reader->U64();
  if (!reader->Done() || begin > kPositionMax || header.count == 0 ||
      header.count > kPositionMax - begin || header.keys_bytes % header.count != 0 ||
      header.values_bytes % header.count != 0 || header.keys_bytes > kRowsBytesMax ||
      header.values_bytes > kRowsBytesMax || header.sample_floats > kRowsBytesMax / sizeof(float)) {
    return Damaged("rows", key);
  }
  header.begin = static_cast<int64_t>(begin);
  return header;
}

absl::Status CheckRowsData(std::string_view key, const RowsHeader& header, std::string_view data) {
  if (data.size() != header.data_bytes() ||
      RecordChecksum(RecordKind::kRowsData, key, {data}) != header.data_checksum) {
    return Damaged("the data of rows", key);
  }
  return absl::OkStatus();
}

}  // namespace attic
