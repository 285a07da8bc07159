#include "server/storage/rows_records.h"

#include <algorithm>
#include <array>
#include <cstring>
#include <limits>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "absl/strings/str_cat.h"
#include "base/status_macros.h"
#include "server/storage/record_codec.h"
#include "server/storage/rocksdb_status.h"

namespace attic {
namespace {

constexpr size_t kBatchOverheadBytes = 512;

rocksdb::Slice SliceOf(const void* data, size_t bytes) {
  return {static_cast<const char*>(data), bytes};
}

// Puts the data of rows into a batch without another copy of them.
rocksdb::Status PutData(RecordsDb& db, const std::string& data_key, const RowsRecord& rows,
                        rocksdb::WriteBatch& batch) {
  const rocksdb::Slice key = data_key;
  const std::array<rocksdb::Slice, 3> parts = {
      SliceOf(rows.keys.data(), rows.keys.size()), SliceOf(rows.values.data(), rows.values.size()),
      SliceOf(rows.query_sample.data(), rows.query_sample.size_bytes())};
  return batch.Put(db.family(RecordFamily::kRowsData), rocksdb::SliceParts(&key, 1),
                   rocksdb::SliceParts(parts.data(), static_cast<int>(parts.size())));
}

// Deletes [begin, end) of both families.
void DeleteRanges(RecordsDb& db, const std::string& begin, const std::string& end,
                  rocksdb::WriteBatch& batch) {
  for (RecordFamily family : {RecordFamily::kRows, RecordFamily::kRowsData}) {
    batch.DeleteRange(db.family(family), begin, end).PermitUncheckedError();
  }
}

// The piece with the rows before `begin` cut off. Counts were checked: they divide the bytes.
RowsRecord Cut(const RowsHeader& header, const rocksdb::Slice& data, int64_t begin,
               std::span<const float> query_sample) {
  const size_t skipped = begin > header.begin ? static_cast<size_t>(begin - header.begin) : 0;
  const auto* bytes = reinterpret_cast<const std::byte*>(data.data());
  RowsRecord rows;
  rows.begin_position = header.begin + static_cast<int64_t>(skipped);
  rows.count = header.count - skipped;
  rows.keys = std::span(bytes, header.keys_bytes)
                  .subspan(skipped * (header.keys_bytes / header.count));
  rows.values = std::span(bytes + header.keys_bytes, header.values_bytes)
                    .subspan(skipped * (header.values_bytes / header.count));
  rows.query_sample = query_sample;
  return rows;
}

// The first `count` rows of a piece; its sample of queries stays whole.
RowsRecord FirstRows(const RowsRecord& piece, size_t count) {
  RowsRecord rows = piece;
  rows.count = count;
  rows.keys = piece.keys.first(piece.keys.size() / piece.count * count);
  rows.values = piece.values.first(piece.values.size() / piece.count * count);
  return rows;
}

}  // namespace

absl::Status RowsRecords::Check(std::span<const RowsRecord> rows) {
  std::optional<int64_t> end;
  for (const RowsRecord& piece : rows) {
    if (piece.begin_position < 0 || piece.count == 0 ||
        piece.count >
            static_cast<uint64_t>(std::numeric_limits<int64_t>::max() - piece.begin_position)) {
      return absl::InvalidArgumentError("rows: their positions are no range");
    }
    if (end && piece.begin_position != *end) {
      return absl::InvalidArgumentError("rows: pieces do not follow each other");
    }
    if (piece.keys.size() % piece.count != 0 || piece.values.size() % piece.count != 0 ||
        piece.keys.size() > kRowsBytesMax || piece.values.size() > kRowsBytesMax ||
        piece.query_sample.size_bytes() > kRowsBytesMax) {
      return absl::InvalidArgumentError(
          absl::StrCat("rows: bytes that are no multiple of the count, or above ", kRowsBytesMax));
    }
    end = piece.begin_position + static_cast<int64_t>(piece.count);
  }
  return absl::OkStatus();
}

absl::Status RowsRecords::Append(uint64_t session_key, uint32_t layer, const RowsRecord& rows,
                                 rocksdb::WriteBatch& batch) {
  const std::string key = RowsKey(session_key, layer, rows.begin_position);
  const RowsHeader header = HeaderOf(key, rows);
  ATTIC_RETURN_IF_ERROR(FromRocksDb(
      PutData(db_, RowsDataKey(key, header.data_checksum), rows, batch), "records"));
  return FromRocksDb(batch.Put(db_.family(RecordFamily::kRows), key, EncodeRows(key, header)),
                     "records");
}

absl::Status RowsRecords::Stage(uint64_t session_key, uint32_t layer,
                                std::span<const RowsRecord> rows) {
  for (const RowsRecord& piece : rows) {
    const std::string key = RowsKey(session_key, layer, piece.begin_position);
    const RowsHeader header = HeaderOf(key, piece);
    rocksdb::PinnableSlice held;
    const absl::Status found = db_.Get(RecordFamily::kRows, key, &held);
    if (found.ok()) {
      ATTIC_ASSIGN_OR_RETURN(const RowsHeader old,
                             DecodeRows(key, {held.data(), held.size()}));
      if (old.data_checksum == header.data_checksum) continue;
    } else if (!absl::IsNotFound(found)) {
      return found;
    }
    rocksdb::WriteBatch batch(header.data_bytes() + kBatchOverheadBytes);
    ATTIC_RETURN_IF_ERROR(FromRocksDb(
        PutData(db_, RowsDataKey(key, header.data_checksum), piece, batch), "records"));
    ATTIC_RETURN_IF_ERROR(db_.Write(batch).status());
  }
  return absl::OkStatus();
}

absl::Status RowsRecords::Replace(uint64_t session_key, uint32_t layer,
                                  std::span<const RowsRecord> rows, rocksdb::WriteBatch& batch) {
  // What goes, less what comes.
  std::vector<std::string> data_keys;
  const std::string begin = LayerKey(session_key, layer);
  const std::string end = EndOfPrefix(begin);
  ATTIC_RETURN_IF_ERROR(db_.Scan(
      RecordFamily::kRows, begin, end, [&](std::string_view key, std::string_view value) {
        ATTIC_ASSIGN_OR_RETURN(const RowsHeader header, DecodeRows(key, value));
        data_keys.push_back(RowsDataKey(key, header.data_checksum));
        return absl::OkStatus();
      }));
  batch.DeleteRange(db_.family(RecordFamily::kRows), begin, end).PermitUncheckedError();
  for (const RowsRecord& piece : rows) {
    const std::string key = RowsKey(session_key, layer, piece.begin_position);
    const RowsHeader header = HeaderOf(key, piece);
    std::erase(data_keys, RowsDataKey(key, header.data_checksum));
    ATTIC_RETURN_IF_ERROR(FromRocksDb(
        batch.Put(db_.family(RecordFamily::kRows), key, EncodeRows(key, header)), "records"));
  }
  for (const std::string& key : data_keys) {
    batch.Delete(db_.family(RecordFamily::kRowsData), key).PermitUncheckedError();
  }
  return absl::OkStatus();
}

absl::Status RowsRecords::Truncate(uint64_t session_key, const LayerCut& cut,
                                   rocksdb::WriteBatch& batch) {
  const std::string begin = LayerKey(session_key, cut.layer);
  const std::string end = EndOfPrefix(begin);
  int64_t first_kept = cut.position;  // where the pieces that stay begin
  ATTIC_RETURN_IF_ERROR(db_.Scan(
      RecordFamily::kRows, begin, end, [&](std::string_view key, std::string_view value) {
        ATTIC_ASSIGN_OR_RETURN(const RowsHeader header, DecodeRows(key, value));
        first_kept = std::min(first_kept, header.begin);
        return absl::OkStatus();
      }));
  DeleteRanges(db_, RowsKey(session_key, cut.layer, cut.position), end, batch);
  ATTIC_RETURN_IF_ERROR(CutPiece(session_key, cut.layer, cut.position, batch));
  for (const RowsRecord& piece : cut.rows) {
    if (piece.begin_position >= first_kept) break;
    const RowsRecord rows = FirstRows(
        piece, std::min<size_t>(piece.count,
                                static_cast<size_t>(first_kept - piece.begin_position)));
    ATTIC_RETURN_IF_ERROR(Stage(session_key, cut.layer, {&rows, 1}));
    const std::string key = RowsKey(session_key, cut.layer, rows.begin_position);
    ATTIC_RETURN_IF_ERROR(FromRocksDb(batch.Put(db_.family(RecordFamily::kRows), key,
                                                EncodeRows(key, HeaderOf(key, rows))),
                                      "records"));
  }
  return absl::OkStatus();
}

absl::Status RowsRecords::CutPiece(uint64_t session_key, uint32_t layer, int64_t position,
                                   rocksdb::WriteBatch& batch) {
  std::optional<RowsHeader> cut;
  ATTIC_RETURN_IF_ERROR(db_.Last(RecordFamily::kRows, LayerKey(session_key, layer),
                                 RowsKey(session_key, layer, position),
                                 [&](std::string_view key, std::string_view value) {
                                   ATTIC_ASSIGN_OR_RETURN(const RowsHeader header,
                                                          DecodeRows(key, value));
                                   if (header.end() > position) cut = header;
                                   return absl::OkStatus();
                                 }));
  if (!cut) return absl::OkStatus();
  const std::string key = RowsKey(session_key, layer, cut->begin);
  const std::string data_key = RowsDataKey(key, cut->data_checksum);
  rocksdb::PinnableSlice data;
  ATTIC_RETURN_IF_ERROR(db_.Get(RecordFamily::kRowsData, data_key, &data));
  ATTIC_RETURN_IF_ERROR(CheckRowsData(key, *cut, {data.data(), data.size()}));
  std::vector<float> query_sample(cut->sample_floats);
  if (!query_sample.empty()) {
    std::memcpy(query_sample.data(), data.data() + cut->keys_bytes + cut->values_bytes,
                query_sample.size() * sizeof(float));
  }
  const RowsRecord rows = FirstRows(Cut(*cut, data, cut->begin, query_sample),
                                    static_cast<size_t>(position - cut->begin));
  const RowsHeader header = HeaderOf(key, rows);
  batch.Delete(db_.family(RecordFamily::kRowsData), data_key).PermitUncheckedError();
  ATTIC_RETURN_IF_ERROR(FromRocksDb(
      PutData(db_, RowsDataKey(key, header.data_checksum), rows, batch), "records"));
  return FromRocksDb(batch.Put(db_.family(RecordFamily::kRows), key, EncodeRows(key, header)),
                     "records");
}

void RowsRecords::RemoveSession(uint64_t session_key, rocksdb::WriteBatch& batch) {
  const std::string begin = SessionKey(session_key);
  DeleteRanges(db_, begin, EndOfPrefix(begin), batch);
}

absl::Status RowsRecords::Drop(uint64_t session_key, uint32_t layer, int64_t position,
                               rocksdb::WriteBatch& batch) {
  if (position <= 0) return absl::OkStatus();
  const std::string begin = LayerKey(session_key, layer);
  std::string end;
  ATTIC_RETURN_IF_ERROR(db_.Last(RecordFamily::kRows, begin,
                                 RowsKey(session_key, layer, position),
                                 [&](std::string_view key, std::string_view value) {
                                   ATTIC_ASSIGN_OR_RETURN(const RowsHeader header,
                                                          DecodeRows(key, value));
                                   end = RowsKey(session_key, layer,
                                                 header.end() > position ? header.begin : position);
                                   return absl::OkStatus();
                                 }));
  if (!end.empty() && end != RowsKey(session_key, layer, 0)) DeleteRanges(db_, begin, end, batch);
  return absl::OkStatus();
}

absl::Status RowsRecords::Read(uint64_t session_key, uint32_t layer, int64_t begin,
                               const std::function<absl::Status(const RowsRecord&)>& visit) {
  begin = std::max<int64_t>(begin, 0);
  // The piece that holds `begin` may start before it.
  std::string first = RowsKey(session_key, layer, begin);
  ATTIC_RETURN_IF_ERROR(db_.Last(RecordFamily::kRows, LayerKey(session_key, layer), first,
                                 [&](std::string_view key, std::string_view) {
                                   first = std::string(key);
                                   return absl::OkStatus();
                                 }));
  std::vector<RowsHeader> pieces;
  int64_t next = begin;
  bool gap = false;
  ATTIC_RETURN_IF_ERROR(
      db_.Scan(RecordFamily::kRows, first, EndOfPrefix(LayerKey(session_key, layer)),
               [&](std::string_view key, std::string_view value) {
                 ATTIC_ASSIGN_OR_RETURN(const RowsHeader header, DecodeRows(key, value));
                 if (gap || header.end() <= begin) return absl::OkStatus();
                 gap = header.begin > next;
                 if (gap) return absl::OkStatus();
                 if (!pieces.empty() && header.begin != next) {
                   return absl::DataLossError("records/: rows overlap");
                 }
                 pieces.push_back(header);
                 next = header.end();
                 return absl::OkStatus();
               }));
  std::vector<float> query_sample;
  for (const RowsHeader& header : pieces) {
    const std::string key = RowsKey(session_key, layer, header.begin);
    rocksdb::PinnableSlice data;
    absl::Status read =
        db_.Get(RecordFamily::kRowsData, RowsDataKey(key, header.data_checksum), &data);
    if (absl::IsNotFound(read)) read = absl::DataLossError("records/: data of rows are missing");
    ATTIC_RETURN_IF_ERROR(read);
    ATTIC_RETURN_IF_ERROR(CheckRowsData(key, header, {data.data(), data.size()}));
    // Copied, because a value in RocksDB has no alignment.
    query_sample.resize(header.sample_floats);
    if (!query_sample.empty()) {
      std::memcpy(query_sample.data(), data.data() + header.keys_bytes + header.values_bytes,
                  header.sample_floats * sizeof(float));
    }
    ATTIC_RETURN_IF_ERROR(visit(Cut(header, data, begin, query_sample)));
  }
  return absl::OkStatus();
}

absl::Status RowsRecords::CheckAll() {
  return db_.Scan(RecordFamily::kRows, {}, {}, [](std::string_view key, std::string_view value) {
    return DecodeRows(key, value).status();
  });
}

absl::Status RowsRecords::RemoveOrphans(std::span<const uint64_t> session_keys) {
  rocksdb::WriteBatch batch;
  uint64_t begin = 0;
  const auto remove = [&](uint64_t end) {  // data of sessions in [begin, end)
    if (begin >= end) return absl::OkStatus();
    bool any = false;
    const std::string first = SessionKey(begin);
    const std::string last = SessionKey(end);
    const absl::Status looked = db_.Scan(RecordFamily::kRowsData, first, last,
                                         [&](std::string_view, std::string_view) {
                                           any = true;
                                           return absl::CancelledError();  // one is enough
                                         });
    if (!looked.ok() && !any) return looked;
    if (any) {
      batch.DeleteRange(db_.family(RecordFamily::kRowsData), first, last).PermitUncheckedError();
    }
    return absl::OkStatus();
  };
  for (uint64_t key : session_keys) {
    ATTIC_RETURN_IF_ERROR(remove(key));
    begin = key + 1;
  }
  ATTIC_RETURN_IF_ERROR(remove(std::numeric_limits<uint64_t>::max()));
  if (batch.Count() == 0) return absl::OkStatus();
  return db_.Write(batch).status();
}

}  // namespace attic
