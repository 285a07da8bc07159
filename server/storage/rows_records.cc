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

namespace attic {
namespace {

constexpr size_t kBatchOverheadBytes = 512;

rocksdb::Slice SliceOf(const void* data, size_t bytes) {
  return {static_cast<const char*>(data), bytes};
}

// Puts the data of rows into a batch without another copy of them.
void PutData(const std::string& data_key, const RowsRecord& rows, RecordBatch& batch) {
  const std::array<rocksdb::Slice, 3> parts = {
      SliceOf(rows.keys.data(), rows.keys.size()), SliceOf(rows.values.data(), rows.values.size()),
      SliceOf(rows.query_sample.data(), rows.query_sample.size_bytes())};
  batch.Put(RecordSpace::kRowsData, data_key, parts);
}

// The piece with the rows before `begin` cut off. Counts were checked: they divide the bytes.
RowsRecord Cut(const RowsHeader& header, const std::string& data, int64_t begin,
               std::span<const float> query_sample) {
  const size_t skipped = begin > header.begin ? static_cast<size_t>(begin - header.begin) : 0;
  const auto* bytes = reinterpret_cast<const std::byte*>(data.data());
  RowsRecord rows;
  rows.begin_position = header.begin + static_cast<int64_t>(skipped);
  rows.count = header.count - skipped;
  rows.keys =
      std::span(bytes, header.keys_bytes).subspan(skipped * (header.keys_bytes / header.count));
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

void RowsRecords::Append(uint64_t session_key, uint32_t layer, const RowsRecord& rows,
                         RecordBatch& batch) {
  const std::string key = RowsKey(session_key, layer, rows.begin_position);
  const RowsHeader header = HeaderOf(key, rows);
  PutData(RowsDataKey(key, header.data_checksum), rows, batch);
  batch.Put(RecordSpace::kRows, key, EncodeRows(key, header));
}

absl::Status RowsRecords::Stage(uint64_t session_key, uint32_t layer,
                                std::span<const RowsRecord> rows) {
  for (const RowsRecord& piece : rows) {
    const std::string key = RowsKey(session_key, layer, piece.begin_position);
    const RowsHeader header = HeaderOf(key, piece);
    const absl::StatusOr<std::string> held = db_.Get(RecordSpace::kRows, key);
    if (held.ok()) {
      ATTIC_ASSIGN_OR_RETURN(const RowsHeader old, DecodeRows(key, *held));
      if (old.data_checksum == header.data_checksum) continue;
    } else if (!absl::IsNotFound(held.status())) {
      return held.status();
    }
    RecordBatch batch(header.data_bytes() + kBatchOverheadBytes);
    PutData(RowsDataKey(key, header.data_checksum), piece, batch);
    ATTIC_RETURN_IF_ERROR(db_.Write(batch).status());
  }
  return absl::OkStatus();
}

absl::Status RowsRecords::Replace(uint64_t session_key, uint32_t layer,
                                  std::span<const RowsRecord> rows, RecordBatch& batch) {
  // What goes, less what comes.
  std::vector<std::string> data_keys;
  const std::string begin = LayerKey(session_key, layer);
  const std::string end = EndOfPrefix(begin);
  ATTIC_RETURN_IF_ERROR(
      db_.Scan(RecordSpace::kRows, begin, end, [&](std::string_view key, std::string_view value) {
        ATTIC_ASSIGN_OR_RETURN(const RowsHeader header, DecodeRows(key, value));
        data_keys.push_back(RowsDataKey(key, header.data_checksum));
        batch.Delete(RecordSpace::kRows, key);
        return absl::OkStatus();
      }));
  for (const RowsRecord& piece : rows) {
    const std::string key = RowsKey(session_key, layer, piece.begin_position);
    const RowsHeader header = HeaderOf(key, piece);
    std::erase(data_keys, RowsDataKey(key, header.data_checksum));
    batch.Put(RecordSpace::kRows, key, EncodeRows(key, header));
  }
  for (const std::string& key : data_keys) {
    batch.Delete(RecordSpace::kRowsData, key);
  }
  return absl::OkStatus();
}

absl::Status RowsRecords::Truncate(uint64_t session_key, const LayerCut& cut, RecordBatch& batch) {
  const std::string begin = LayerKey(session_key, cut.layer);
  const std::string end = EndOfPrefix(begin);
  int64_t first_kept = cut.position;  // where the pieces that stay begin
  ATTIC_RETURN_IF_ERROR(
      db_.Scan(RecordSpace::kRows, begin, end, [&](std::string_view key, std::string_view value) {
        ATTIC_ASSIGN_OR_RETURN(const RowsHeader header, DecodeRows(key, value));
        first_kept = std::min(first_kept, header.begin);
        return absl::OkStatus();
      }));
  ATTIC_RETURN_IF_ERROR(Remove(RowsKey(session_key, cut.layer, cut.position), end, batch));
  ATTIC_RETURN_IF_ERROR(CutPiece(session_key, cut.layer, cut.position, batch));
  for (const RowsRecord& piece : cut.rows) {
    if (piece.begin_position >= first_kept) break;
    const RowsRecord rows = FirstRows(
        piece,
        std::min<size_t>(piece.count, static_cast<size_t>(first_kept - piece.begin_position)));
    ATTIC_RETURN_IF_ERROR(Stage(session_key, cut.layer, {&rows, 1}));
    const std::string key = RowsKey(session_key, cut.layer, rows.begin_position);
    batch.Put(RecordSpace::kRows, key, EncodeRows(key, HeaderOf(key, rows)));
  }
  return absl::OkStatus();
}

absl::Status RowsRecords::CutPiece(uint64_t session_key, uint32_t layer, int64_t position,
                                   RecordBatch& batch) {
  std::optional<RowsHeader> cut;
  ATTIC_RETURN_IF_ERROR(db_.Last(
      RecordSpace::kRows, LayerKey(session_key, layer), RowsKey(session_key, layer, position),
      [&](std::string_view key, std::string_view value) {
        ATTIC_ASSIGN_OR_RETURN(const RowsHeader header, DecodeRows(key, value));
        if (header.end() > position) cut = header;
        return absl::OkStatus();
      }));
  if (!cut) return absl::OkStatus();
  const std::string key = RowsKey(session_key, layer, cut->begin);
  const std::string data_key = RowsDataKey(key, cut->data_checksum);
  ATTIC_ASSIGN_OR_RETURN(const std::string data, db_.Get(RecordSpace::kRowsData, data_key));
  ATTIC_RETURN_IF_ERROR(CheckRowsData(key, *cut, data));
  std::vector<float> query_sample(cut->sample_floats);
  if (!query_sample.empty()) {
    std::memcpy(query_sample.data(), data.data() + cut->keys_bytes + cut->values_bytes,
                query_sample.size() * sizeof(float));
  }
  const RowsRecord rows = FirstRows(Cut(*cut, data, cut->begin, query_sample),
                                    static_cast<size_t>(position - cut->begin));
  const RowsHeader header = HeaderOf(key, rows);
  batch.Delete(RecordSpace::kRowsData, data_key);
  PutData(RowsDataKey(key, header.data_checksum), rows, batch);
  batch.Put(RecordSpace::kRows, key, EncodeRows(key, header));
  return absl::OkStatus();
}

absl::Status RowsRecords::Remove(const std::string& begin, const std::string& end,
                                 RecordBatch& batch) {
  return db_.Scan(RecordSpace::kRows, begin, end,
                  [&](std::string_view key, std::string_view value) {
                    ATTIC_ASSIGN_OR_RETURN(const RowsHeader header, DecodeRows(key, value));
                    batch.Delete(RecordSpace::kRowsData, RowsDataKey(key, header.data_checksum));
                    batch.Delete(RecordSpace::kRows, key);
                    return absl::OkStatus();
                  });
}

absl::Status RowsRecords::Drop(uint64_t session_key, uint32_t layer, int64_t position,
                               RecordBatch& batch) {
  if (position <= 0) return absl::OkStatus();
  const std::string begin = LayerKey(session_key, layer);
  std::string end;
  ATTIC_RETURN_IF_ERROR(db_.Last(
      RecordSpace::kRows, begin, RowsKey(session_key, layer, position),
      [&](std::string_view key, std::string_view value) {
        ATTIC_ASSIGN_OR_RETURN(const RowsHeader header, DecodeRows(key, value));
        end = RowsKey(session_key, layer, header.end() > position ? header.begin : position);
        return absl::OkStatus();
      }));
  return end.empty() ? absl::OkStatus() : Remove(begin, end, batch);
}

absl::Status RowsRecords::Read(uint64_t session_key, uint32_t layer, int64_t begin,
                               const std::function<absl::Status(const RowsRecord&)>& visit) {
  begin = std::max<int64_t>(begin, 0);
  // The piece that holds `begin` may start before it.
  std::string first = RowsKey(session_key, layer, begin);
  ATTIC_RETURN_IF_ERROR(db_.Last(RecordSpace::kRows, LayerKey(session_key, layer), first,
                                 [&](std::string_view key, std::string_view) {
                                   first = std::string(key);
                                   return absl::OkStatus();
                                 }));
  std::vector<RowsHeader> pieces;
  int64_t next = begin;
  bool gap = false;
  ATTIC_RETURN_IF_ERROR(
      db_.Scan(RecordSpace::kRows, first, EndOfPrefix(LayerKey(session_key, layer)),
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
    const absl::StatusOr<std::string> data =
        db_.Get(RecordSpace::kRowsData, RowsDataKey(key, header.data_checksum));
    if (absl::IsNotFound(data.status())) {
      return absl::DataLossError("records/: data of rows are missing");
    }
    ATTIC_RETURN_IF_ERROR(data.status());
    ATTIC_RETURN_IF_ERROR(CheckRowsData(key, header, *data));
    // Copied, because a value in RocksDB has no alignment.
    query_sample.resize(header.sample_floats);
    if (!query_sample.empty()) {
      std::memcpy(query_sample.data(), data->data() + header.keys_bytes + header.values_bytes,
                  header.sample_floats * sizeof(float));
    }
    ATTIC_RETURN_IF_ERROR(visit(Cut(header, *data, begin, query_sample)));
  }
  return absl::OkStatus();
}

absl::Status RowsRecords::CheckAll() {
  return db_.Scan(RecordSpace::kRows, {}, {}, [](std::string_view key, std::string_view value) {
    return DecodeRows(key, value).status();
  });
}

absl::Status RowsRecords::RemoveOrphans(std::span<const uint64_t> session_keys) {
  RecordBatch batch;
  uint64_t begin = 0;
  const auto remove = [&](uint64_t end) {  // data of sessions in [begin, end)
    if (begin >= end) return absl::OkStatus();
    return db_.Scan(RecordSpace::kRowsData, SessionKey(begin), SessionKey(end),
                    [&](std::string_view key, std::string_view) {
                      batch.Delete(RecordSpace::kRowsData, key);
                      return absl::OkStatus();
                    });
  };
  for (uint64_t key : session_keys) {
    ATTIC_RETURN_IF_ERROR(remove(key));
    begin = key + 1;
  }
  ATTIC_RETURN_IF_ERROR(remove(std::numeric_limits<uint64_t>::max()));
  if (batch.empty()) return absl::OkStatus();
  return db_.Write(batch).status();
}

}  // namespace attic
