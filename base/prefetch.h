// Asking for memory before it is needed.
#ifndef ATTIC_BASE_PREFETCH_H_
#define ATTIC_BASE_PREFETCH_H_

#include <cstddef>

namespace attic {

// Brings `bytes` from `begin` on into the cache, without waiting. Any address will do.
inline void PrefetchBytes(const void* begin, size_t bytes) {
  constexpr size_t kCacheLineBytes = 64;
  for (size_t i = 0; i < bytes; i += kCacheLineBytes) {
    __builtin_prefetch(static_cast<const char*>(begin) + i);
  }
}

}  // namespace attic

#endif  // ATTIC_BASE_PREFETCH_H_
