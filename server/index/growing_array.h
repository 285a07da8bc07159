// An append-only array whose filled prefix is read without a lock while its owner appends.
#ifndef ATTIC_SERVER_INDEX_GROWING_ARRAY_H_
#define ATTIC_SERVER_INDEX_GROWING_ARRAY_H_

#include <algorithm>
#include <cstddef>
#include <memory>
#include <span>
#include <type_traits>

namespace attic {

// The owner (one thread at a time) appends; views taken earlier keep their buffer alive and stay
// valid, because elements below a view's size are never written again: growth beyond the capacity
// and appends after Truncate go to a new buffer. Whoever hands a view to another thread must
// synchronise that hand-over.
template <typename T>
class GrowingArray {
  static_assert(std::is_trivially_copyable_v<T>);

 public:
  class View {
   public:
    View() = default;
    const T* data() const { return buffer_.get(); }
    size_t size() const { return size_; }
    std::span<const T> span() const { return {data(), size_}; }

   private:
    friend class GrowingArray;
    std::shared_ptr<T[]> buffer_;
    size_t size_ = 0;
  };

  void Append(std::span<const T> items) {
    if (size_ + items.size() > capacity_) Grow(size_ + items.size());
    std::copy(items.begin(), items.end(), buffer_.get() + size_);
    size_ += items.size();
  }

  // Keeps the first `size` elements.
  void Truncate(size_t size) {
    if (size >= size_) return;
    size_ = size;
    capacity_ = size;  // the elements behind may still be read through views
  }

  // An array of the first `size` elements, sharing the buffer until either side appends.
  GrowingArray Prefix(size_t size) const {
    GrowingArray prefix;
    prefix.buffer_ = buffer_;
    prefix.size_ = prefix.capacity_ = std::min(size, size_);
    return prefix;
  }

  View view() const {
    View view;
    view.buffer_ = buffer_;
    view.size_ = size_;
    return view;
  }

  size_t size() const { return size_; }
  size_t capacity_bytes() const { return capacity_ * sizeof(T); }

 private:
  void Grow(size_t size) {
    const size_t capacity = std::max(size, capacity_ + capacity_ / 8);
    std::shared_ptr<T[]> buffer(new T[capacity]);
    std::copy(buffer_.get(), buffer_.get() + size_, buffer.get());
    buffer_ = std::move(buffer);
    capacity_ = capacity;
  }

  std::shared_ptr<T[]> buffer_;
  size_t size_ = 0;
  size_t capacity_ = 0;
};

}  // namespace attic

#endif  // ATTIC_SERVER_INDEX_GROWING_ARRAY_H_
