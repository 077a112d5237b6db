# The libraries of others: how CMake finds each one, and what pkg-config and Debian call it. The build
# reads this table, and so does an installed c2rConfig.cmake, so that both look for the same.

# target | package for find_package() | its mode | module of pkg-config, or flags | package of Debian
set(C2R_OTHERS
  "Threads::Threads|Threads|MODULE|-pthread|libc6-dev"
  "fmt::fmt|fmt|CONFIG|fmt|libfmt-dev"
  "nlohmann_json::nlohmann_json|nlohmann_json|CONFIG|nlohmann_json|nlohmann-json3-dev"
  "LibLZMA::LibLZMA|LibLZMA|MODULE|liblzma|liblzma-dev"
  "ZLIB::ZLIB|ZLIB|MODULE|zlib|zlib1g-dev"
  "zstd::libzstd_shared|zstd|CONFIG|libzstd|libzstd-dev"
  "yaml-cpp|yaml-cpp|CONFIG|yaml-cpp|libyaml-cpp-dev"
  "hwy::hwy|hwy|CONFIG|libhwy|libhwy-dev"
  "Eigen3::Eigen|Eigen3|CONFIG|eigen3|libeigen3-dev"
  "CLI11::CLI11|CLI11|CONFIG|CLI11|libcli11-dev"
  "PkgConfig::pcre2|||libpcre2-8|libpcre2-dev"  # has no files for CMake, like utf8proc
  "PkgConfig::utf8proc|||libutf8proc|libutf8proc-dev"
  "GTest::gtest|GTest||gtest|libgtest-dev"
  "MPI::MPI_CXX|MPI|MODULE||libopenmpi-dev")

# c2r_other(TARGET): sets package, mode, pkg_config and debian to the fields of its row.
macro(c2r_other target)
  set(row ${C2R_OTHERS})
  list(FILTER row INCLUDE REGEX "^${target}\\|")
  if(row STREQUAL "")
    message(FATAL_ERROR "c2r: ${target} is not in the table of cmake/c2r_libraries.cmake")
  endif()
  string(REPLACE "|" ";" row "${row}")
  list(GET row 1 package)
  list(GET row 2 mode)
  list(GET row 3 pkg_config)
  list(GET row 4 debian)
endmacro()

# c2r_find(TARGET): looks for a library. Where it is not found, there is no TARGET afterwards.
function(c2r_find target)
  if(TARGET ${target})
    return()
  endif()
  c2r_other(${target})
  if(package STREQUAL "MPI")
    set(MPI_CXX_SKIP_MPICXX ON)  # only the C interface is used
    find_package(MPI QUIET COMPONENTS CXX)
  elseif(package)
    find_package(${package} QUIET ${mode})
  else()
    find_package(PkgConfig QUIET)
    if(PkgConfig_FOUND)
      string(REPLACE "PkgConfig::" "" prefix ${target})
      pkg_check_modules(${prefix} QUIET IMPORTED_TARGET ${pkg_config})
    endif()
  endif()
endfunction()
