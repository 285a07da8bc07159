# Everything Attic links comes from Debian or Ubuntu packages (see the list in ./run).

find_package(Threads REQUIRED)
find_package(absl REQUIRED CONFIG)
find_package(hwy REQUIRED CONFIG)
find_package(PkgConfig REQUIRED)
pkg_check_modules(OpenBLAS REQUIRED IMPORTED_TARGET openblas)
find_path(HNSWLIB_INCLUDE_DIR hnswlib/hnswlib.h REQUIRED)
if(ATTIC_TESTS)
  find_package(GTest REQUIRED CONFIG)
endif()

if(NOT ATTIC_CORE_ONLY)
  find_package(Protobuf REQUIRED)
  find_package(gRPC REQUIRED CONFIG)
  find_package(CLI11 REQUIRED CONFIG)
  find_package(nlohmann_json REQUIRED CONFIG)
endif()
