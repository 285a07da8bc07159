// Checks of programmer errors. They stay on in release builds: a broken invariant stops the process
// before it can answer wrongly. Input and disk contents are never checked with these.
#ifndef ATTIC_BASE_CHECK_H_
#define ATTIC_BASE_CHECK_H_

namespace attic::internal {

// Prints "file:line: check failed: condition" to stderr and aborts.
[[noreturn]] void CheckFailed(const char* file, int line, const char* condition);

}  // namespace attic::internal

#define ATTIC_CHECK(condition)                       \
  (__builtin_expect(static_cast<bool>(condition), 1) \
       ? static_cast<void>(0)                        \
       : ::attic::internal::CheckFailed(__FILE__, __LINE__, #condition))

#endif  // ATTIC_BASE_CHECK_H_
