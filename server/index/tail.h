// The tokens of a head that no segment holds yet.
#ifndef ATTIC_SERVER_INDEX_TAIL_H_
#define ATTIC_SERVER_INDEX_TAIL_H_

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <memory>
#include <vector>

#include "api/types.h"
#include "attention/element_type.h"

namespace attic {

struct TailShape {
  ElementType element_type = ElementType::kBFloat16;
  size_t head_dim = 0;
  size_t value_dim = 0;
  size_t chunk_tokens = 1;

  size_t key_row_bytes() const { return head_dim * ElementBytes(element_type); }
  size_t value_row_bytes() const { return value_dim * ElementBytes(element_type); }
};

// Room for chunk_tokens rows. Rows are written once, before they are published in a view.
struct TailChunk {
  explicit TailChunk(const TailShape& shape)
      : keys(new std::byte[shape.chunk_tokens * shape.key_row_bytes()]),
        values(new std::byte[shape.chunk_tokens * shape.value_row_bytes()]) {}
  std::unique_ptr<std::byte[]> keys;    // (chunk_tokens, head_dim)
  std::unique_ptr<std::byte[]> values;  // (chunk_tokens, value_dim)
};

// An immutable view of consecutive positions. Thread-safe.
class TailView {
 public:
  int64_t begin_position() const { return begin_; }
  int64_t end_position() const { return end_; }
  int64_t token_count() const { return end_ - begin_; }

  // Calls visit(position, keys, values) for the contiguous runs of `range` held here, in order.
  template <typename Visit>
  void ForEachRun(PositionRange range, const Visit& visit) const {
    const auto chunk_tokens = static_cast<int64_t>(shape_.chunk_tokens);
    const int64_t end = std::min(range.end, end_);
    int64_t position = std::max(range.begin, begin_);
    while (position < end) {
      const size_t chunk = static_cast<size_t>((position - begin_) / chunk_tokens);
      const size_t row = static_cast<size_t>((position - begin_) % chunk_tokens);
      const int64_t chunk_end = begin_ + static_cast<int64_t>(chunk + 1) * chunk_tokens;
      const auto n = static_cast<size_t>(std::min(end, chunk_end) - position);
      visit(position, keys(chunk).rows(row, n), values(chunk).rows(row, n));
      position += static_cast<int64_t>(n);
    }
  }

  // Copies the rows of `range`, which must be held here.
  void Copy(PositionRange range, std::byte* keys, std::byte* values) const;

 private:
  friend class Tail;
  VectorsView keys(size_t chunk) const {
    return {chunks_[chunk]->keys.get(), shape_.element_type, shape_.chunk_tokens, shape_.head_dim};
  }
  VectorsView values(size_t chunk) const {
    return {chunks_[chunk]->values.get(), shape_.element_type, shape_.chunk_tokens,
            shape_.value_dim};
  }

  TailShape shape_;
  int64_t begin_ = 0;
  int64_t end_ = 0;
  std::vector<std::shared_ptr<const TailChunk>> chunks_;
};

// The growing end of a head. The owner serialises calls; views stay valid and unchanged whatever
// happens later.
class Tail {
 public:
  // Starts empty at `begin_position`.
  Tail(const TailShape& shape, int64_t begin_position);

  // Unpublished room behind the last token: rows may be written there by one thread without the
  // owner's lock, then published by Advance. rows >= 1.
  struct Room {
    std::shared_ptr<TailChunk> chunk;
    size_t first_row = 0;
    size_t rows = 0;
  };
  Room Reserve();
  void Advance(size_t rows) { end_ += static_cast<int64_t>(rows); }

  // Forgets the first `tokens` tokens, a multiple of chunk_tokens.
  void DropFront(int64_t tokens);

  // Forgets positions >= position, which must not be below the beginning.
  void Truncate(int64_t position);

  // A tail of the positions below `position`, sharing full chunks; both may go on growing.
  Tail Prefix(int64_t position) const;

  TailView View() const;

  int64_t begin_position() const { return begin_; }
  int64_t end_position() const { return end_; }
  int64_t token_count() const { return end_ - begin_; }
  const TailShape& shape() const { return shape_; }
  uint64_t memory_bytes() const;

 private:
  void CutAt(int64_t position);

  TailShape shape_;
  int64_t begin_;
  int64_t end_;
  std::vector<std::shared_ptr<TailChunk>> chunks_;
};

// Appends all rows to `tail` from the calling thread; for a tail nobody else sees.
void AppendToTail(const VectorsView& keys, const VectorsView& values, Tail& tail);

// Copies rows [first, first + room.rows) of keys and values into the room.
void FillRoom(const TailShape& shape, const Tail::Room& room, const VectorsView& keys,
              const VectorsView& values, size_t first);

}  // namespace attic

#endif  // ATTIC_SERVER_INDEX_TAIL_H_
