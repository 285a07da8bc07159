// Numbers as people read them.
#ifndef ATTIC_CLIENT_CLI_TEXT_FORMAT_H_
#define ATTIC_CLIENT_CLI_TEXT_FORMAT_H_

#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

namespace attic::cli {

// "1,048,576".
std::string FormatCount(int64_t value);

// "812 B", "3.4 KB", "1.2 GB"; powers of 1,000.
std::string FormatBytes(double bytes);

// Fixed point with `decimals` digits.
std::string FormatFixed(double value, int decimals);

// "1.73%".
std::string FormatPercent(double share, int decimals = 1);

// "0.4 s", "12 s", "3 min 05 s", "2 h 10 min".
std::string FormatSeconds(double seconds);

// Printable ASCII as it is, everything else as \xNN.
std::string EscapeText(std::string_view bytes);

// The value at `share` in [0, 1] of the sorted values, nearest rank; 0 when there are none.
double Percentile(std::vector<double> values, double share);

inline double Median(std::vector<double> values) { return Percentile(std::move(values), 0.5); }

}  // namespace attic::cli

#endif  // ATTIC_CLIENT_CLI_TEXT_FORMAT_H_
