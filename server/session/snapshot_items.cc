#include "server/session/snapshot_items.h"

#include <cstring>
#include <span>
#include <utility>

#include "base/byte_codec.h"
#include "base/status_macros.h"

namespace attic {
namespace {

constexpr size_t kRowsHeaderBytes = 4 * sizeof(uint64_t);

template <typename T>
std::span<const std::byte> Bytes(const std::string& bytes, size_t offset, T size) {
  return std::as_bytes(std::span(bytes)).subspan(offset, static_cast<size_t>(size));
}

}  // namespace

std::string EncodeSnapshotSession(const SnapshotSession& session) {
  const SessionRecord& record = session.record;
  const Fingerprint& fingerprint = record.fingerprint;
  RecordedAttributes recorded = session.recorded;
  // The form of durable sessions; what an import is, it is told.
  recorded.attributes.durability = Durability::kDurable;
  ByteWriter writer;
  writer.Put(session.position);
  writer.PutText(record.session_id);
  writer.PutText(fingerprint.model_id);
  writer.PutText(fingerprint.revision);
  writer.PutText(fingerprint.position_encoding);
  writer.Put(fingerprint.layers);
  writer.Put(fingerprint.q_heads);
  writer.Put(fingerprint.kv_heads);
  writer.Put(fingerprint.head_dim);
  writer.Put(fingerprint.value_dim);
  writer.Put(fingerprint.element_type);
  writer.Put(fingerprint.logit_scale);
  writer.PutArray(record.stored_layers);
  writer.PutText(EncodeSessionAttributes(recorded));
  return writer.Take();
}

absl::StatusOr<SnapshotSession> DecodeSnapshotSession(const std::string& bytes) {
  ByteReader reader(bytes);
  SnapshotSession session;
  SessionRecord& record = session.record;
  Fingerprint& fingerprint = record.fingerprint;
  session.position = reader.Get<int64_t>();
  record.session_id = reader.GetText();
  fingerprint.model_id = reader.GetText();
  fingerprint.revision = reader.GetText();
  fingerprint.position_encoding = reader.GetText();
  fingerprint.layers = reader.Get<uint32_t>();
  fingerprint.q_heads = reader.Get<uint32_t>();
  fingerprint.kv_heads = reader.Get<uint32_t>();
  fingerprint.head_dim = reader.Get<uint32_t>();
  fingerprint.value_dim = reader.Get<uint32_t>();
  fingerprint.element_type = reader.Get<ElementType>();
  fingerprint.logit_scale = reader.Get<float>();
  record.stored_layers = reader.GetArray<uint32_t>();
  record.attributes = reader.GetText();
  const bool known = fingerprint.element_type >= ElementType::kFloat32 &&
                     fingerprint.element_type <= ElementType::kFloat16;
  if (!reader.AtEnd() || !known || session.position < 0) {
    return absl::DataLossError("snapshot: the session cannot be read");
  }
  ATTIC_ASSIGN_OR_RETURN(session.recorded, DecodeSessionAttributes(record.attributes));
  return session;
}

std::string EncodeSnapshotHead(const SnapshotHead& head) {
  ByteWriter writer;
  writer.Put(head.segments);
  writer.PutText(head.learnt);
  return writer.Take();
}

absl::StatusOr<SnapshotHead> DecodeSnapshotHead(const std::string& bytes) {
  ByteReader reader(bytes);
  SnapshotHead head;
  head.segments = reader.Get<uint64_t>();
  head.learnt = reader.GetText();
  if (!reader.AtEnd()) return absl::DataLossError("snapshot: a head cannot be read");
  return head;
}

std::string EncodeSnapshotRows(const RowsRecord& rows) {
  ByteWriter writer;
  writer.Put(rows.begin_position);
  writer.Put(uint64_t{rows.count});
  writer.Put(uint64_t{rows.keys.size()});
  writer.Put(uint64_t{rows.values.size()});
  std::string bytes = writer.Take();
  bytes.reserve(bytes.size() + rows.keys.size() + rows.values.size());
  for (const std::span<const std::byte> part : {rows.keys, rows.values}) {
    bytes.append(reinterpret_cast<const char*>(part.data()), part.size());
  }
  return bytes;
}

absl::StatusOr<RowsRecord> DecodeSnapshotRows(const std::string& bytes) {
  ByteReader reader(bytes);
  RowsRecord rows;
  rows.begin_position = reader.Get<int64_t>();
  rows.count = reader.Get<uint64_t>();
  const auto keys_bytes = reader.Get<uint64_t>();
  const auto values_bytes = reader.Get<uint64_t>();
  if (!reader.ok() || keys_bytes > bytes.size() - kRowsHeaderBytes ||
      values_bytes != bytes.size() - kRowsHeaderBytes - keys_bytes) {
    return absl::DataLossError("snapshot: rows cannot be read");
  }
  rows.keys = Bytes(bytes, kRowsHeaderBytes, keys_bytes);
  rows.values = Bytes(bytes, kRowsHeaderBytes + keys_bytes, values_bytes);
  return rows;
}

}  // namespace attic
