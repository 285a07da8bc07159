// The JSON form of what a store answers. Field names are those of proto/attic/v1.
#ifndef ATTIC_CLIENT_CLI_JSON_OUTPUT_H_
#define ATTIC_CLIENT_CLI_JSON_OUTPUT_H_

#include <nlohmann/json.hpp>

#include "api/types.h"

namespace attic::cli {

nlohmann::ordered_json ToJson(const Fingerprint& fingerprint);
nlohmann::ordered_json ToJson(const SessionDescription& session);
nlohmann::ordered_json ToJson(const MemoryUse& memory);
nlohmann::ordered_json ToJson(const StoreStatus& status);
nlohmann::ordered_json ToJson(const ReadStatistics& read);
nlohmann::ordered_json ToJson(const HeadPlan& plan);
// One field of the goal's name; none for the default.
nlohmann::ordered_json ToJson(const SelectionPolicy& selection);

}  // namespace attic::cli

#endif  // ATTIC_CLIENT_CLI_JSON_OUTPUT_H_
