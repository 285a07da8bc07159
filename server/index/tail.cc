#include "server/index/tail.h"

#include <cstring>

#include "base/check.h"

namespace attic {

void TailView::Copy(PositionRange range, std::byte* keys, std::byte* values) const {
  ATTIC_CHECK(range.begin >= begin_ && range.end <= end_);
  ForEachRun(range, [&](int64_t, const VectorsView& key_rows, const VectorsView& value_rows) {
    std::memcpy(keys, key_rows.data, key_rows.bytes());
    std::memcpy(values, value_rows.data, value_rows.bytes());
    keys += key_rows.bytes();
    values += value_rows.bytes();
  });
}

Tail::Tail(const TailShape& shape, int64_t begin_position)
    : shape_(shape), begin_(begin_position), end_(begin_position) {
  ATTIC_CHECK(shape.chunk_tokens > 0);
}

Tail::Room Tail::Reserve() {
  const auto held = static_cast<size_t>(token_count());
  const size_t row = held % shape_.chunk_tokens;
  const size_t chunk = held / shape_.chunk_tokens;
  if (chunk == chunks_.size()) chunks_.push_back(std::make_shared<TailChunk>(shape_));
  return {chunks_[chunk], row, shape_.chunk_tokens - row};
}

void Tail::DropFront(int64_t tokens) {
  const auto chunk_tokens = static_cast<int64_t>(shape_.chunk_tokens);
  ATTIC_CHECK(tokens % chunk_tokens == 0 && tokens <= token_count());
  chunks_.erase(chunks_.begin(), chunks_.begin() + tokens / chunk_tokens);
  begin_ += tokens;
}

void Tail::Truncate(int64_t position) {
  ATTIC_CHECK(position >= begin_);
  if (position < end_) CutAt(position);
}

Tail Tail::Prefix(int64_t position) const {
  ATTIC_CHECK(position >= begin_ && position <= end_);
  Tail prefix = *this;
  prefix.CutAt(position);
  return prefix;
}

void Tail::CutAt(int64_t position) {
  end_ = position;
  const auto held = static_cast<size_t>(token_count());
  const size_t rows = held % shape_.chunk_tokens;
  const size_t full = held / shape_.chunk_tokens;
  if (rows == 0) {
    chunks_.resize(full);
    return;
  }
  // Others may read or write the rows behind `position`, so new rows must go elsewhere.
  auto chunk = std::make_shared<TailChunk>(shape_);
  std::memcpy(chunk->keys.get(), chunks_[full]->keys.get(), rows * shape_.key_row_bytes());
  std::memcpy(chunk->values.get(), chunks_[full]->values.get(), rows * shape_.value_row_bytes());
  chunks_.resize(full);
  chunks_.push_back(std::move(chunk));
}

TailView Tail::View() const {
  TailView view;
  view.shape_ = shape_;
  view.begin_ = begin_;
  view.end_ = end_;
  view.chunks_.assign(chunks_.begin(), chunks_.end());
  return view;
}

uint64_t Tail::memory_bytes() const {
  return chunks_.size() * shape_.chunk_tokens * (shape_.key_row_bytes() + shape_.value_row_bytes());
}

void FillRoom(const TailShape& shape, const Tail::Room& room, const VectorsView& keys,
              const VectorsView& values, size_t first) {
  const size_t key_bytes = shape.key_row_bytes(), value_bytes = shape.value_row_bytes();
  std::memcpy(room.chunk->keys.get() + room.first_row * key_bytes, keys.row(first),
              room.rows * key_bytes);
  std::memcpy(room.chunk->values.get() + room.first_row * value_bytes, values.row(first),
              room.rows * value_bytes);
}

void AppendToTail(const VectorsView& keys, const VectorsView& values, Tail& tail) {
  for (size_t done = 0; done < keys.count;) {
    Tail::Room room = tail.Reserve();
    room.rows = std::min(room.rows, keys.count - done);
    FillRoom(tail.shape(), room, keys, values, done);
    tail.Advance(room.rows);
    done += room.rows;
  }
}

}  // namespace attic
