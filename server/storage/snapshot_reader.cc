#include "server/storage/snapshot_reader.h"

#include <algorithm>
#include <utility>

#include "absl/strings/str_cat.h"
#include "base/status_macros.h"

namespace attic {
namespace {

absl::Status Damaged(const char* what) {
  return absl::DataLossError(absl::StrCat("snapshot: ", what));
}

}  // namespace

absl::Status SnapshotReader::Read(std::string_view bytes) {
  if (error_.ok()) error_ = ReadAll(bytes);
  return error_;
}

absl::Status SnapshotReader::Finish() {
  if (error_.ok() && !ended_) error_ = Damaged("it ends too early");
  return error_;
}

absl::Status SnapshotReader::ReadAll(std::string_view bytes) {
  // Most often blocks come whole, and nothing is copied here.
  std::string joined;
  if (!pending_.empty()) {
    joined = std::move(pending_);
    joined.append(bytes);
    bytes = joined;
  }
  for (;;) {
    ATTIC_ASSIGN_OR_RETURN(const bool taken, TakePart(bytes));
    if (!taken) break;
  }
  // Where nothing was complete nothing is copied either, however small the pieces are.
  if (!joined.empty() && bytes.size() == joined.size()) {
    pending_ = std::move(joined);
  } else {
    pending_ = std::string(bytes);
  }
  return absl::OkStatus();
}

absl::StatusOr<bool> SnapshotReader::TakePart(std::string_view& bytes) {
  if (ended_ && !bytes.empty()) return Damaged("there are bytes behind its end");
  if (bytes.size() < kSnapshotHeaderBytes) return false;
  const std::string_view header = bytes.substr(0, kSnapshotHeaderBytes);
  size_t taken = kSnapshotHeaderBytes;
  if (!has_header_) {
    ATTIC_ASSIGN_OR_RETURN(identity_, DecodeSnapshotHeader(header));
    has_header_ = true;
  } else {
    ATTIC_ASSIGN_OR_RETURN(const SnapshotBlock block, DecodeSnapshotBlock(header));
    if (bytes.size() - kSnapshotHeaderBytes < block.payload_bytes) return false;
    const std::string_view payload = bytes.substr(kSnapshotHeaderBytes, block.payload_bytes);
    ATTIC_RETURN_IF_ERROR(CheckSnapshotBlock(identity_, header, payload));
    if (block.number != counted_.blocks) return Damaged("a block is missing");
    ATTIC_RETURN_IF_ERROR(TakeBlock(block, payload));
    ++counted_.blocks;
    taken += payload.size();
  }
  checksum_.Update(bytes.substr(0, taken));
  counted_.bytes += taken;
  bytes.remove_prefix(taken);
  return true;
}

absl::Status SnapshotReader::TakeBlock(const SnapshotBlock& block, std::string_view payload) {
  const bool follows = in_item_ ? block.item == name_ && block.item_bytes == item_bytes_ &&
                                      block.item_offset == item_.size()
                                : block.item_offset == 0;
  if (!follows) return Damaged("a block does not follow the one before");
  if (block.item.kind == SnapshotKind::kEnd) return TakeEnd(payload);
  if (!in_item_) {
    ATTIC_RETURN_IF_ERROR(reserve_(block.item_bytes));
    in_item_ = true;
    name_ = block.item;
    item_bytes_ = block.item_bytes;
  }
  item_.append(payload);
  if (item_.size() < item_bytes_) {
    return payload.empty() ? Damaged("an empty block inside an item") : absl::OkStatus();
  }
  in_item_ = false;
  return visit_(name_, std::exchange(item_, {}));
}

absl::Status SnapshotReader::TakeEnd(std::string_view payload) {
  counted_.checksum = checksum_.value();
  ATTIC_ASSIGN_OR_RETURN(const SnapshotEnd end, DecodeSnapshotEnd(payload));
  if (end != counted_) return Damaged("its end and what was read differ");
  ended_ = true;
  return absl::OkStatus();
}

}  // namespace attic
