// Which sanitizer a test is built with.
#ifndef ATTIC_TESTS_SUPPORT_SANITIZER_H_
#define ATTIC_TESTS_SUPPORT_SANITIZER_H_

namespace attic {

// It slows computation ten- to thirtyfold.
#if defined(__SANITIZE_THREAD__)
inline constexpr bool kThreadSanitizer = true;
#elif defined(__has_feature)
#if __has_feature(thread_sanitizer)
inline constexpr bool kThreadSanitizer = true;
#else
inline constexpr bool kThreadSanitizer = false;
#endif
#else
inline constexpr bool kThreadSanitizer = false;
#endif

}  // namespace attic

#endif  // ATTIC_TESTS_SUPPORT_SANITIZER_H_
