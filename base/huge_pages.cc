// Memory of the whole program in huge pages, where the machine has them for the asking: keys and
// codes are read here and there over gigabytes, and pages of 4 KiB would cost a table walk for most
// of these reads. jemalloc reads this name before main().
extern "C" {
extern const char* const malloc_conf;
const char* const malloc_conf = "thp:always,metadata_thp:auto";
}
