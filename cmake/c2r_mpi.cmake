# The MPI transport, and how its tests are started. Include it when the other modules are there.
set(C2R_MPI "auto" CACHE STRING
    "MPI to build with: openmpi or mpich (Debian's), auto (what CMake finds, if any), none")
set_property(CACHE C2R_MPI PROPERTY STRINGS auto openmpi mpich none)
set(C2R_HAS_MPI OFF)
if(NOT TARGET c2r_cli AND NOT "transport_mpi" IN_LIST modules)  # nobody who would use it
  return()
endif()
if(DEFINED C2R_MPI_FOUND AND NOT C2R_MPI STREQUAL C2R_MPI_FOUND)  # what was found for another one
  get_cmake_property(cached CACHE_VARIABLES)
  list(FILTER cached INCLUDE REGEX "^(MPI_|MPIEXEC_)")
  foreach(name ${cached})
    unset(${name} CACHE)
  endforeach()
endif()
set(C2R_MPI_FOUND ${C2R_MPI} CACHE INTERNAL "the C2R_MPI of the last configuration")

set(MPI_CXX_SKIP_MPICXX ON)  # we use the C interface
if(C2R_MPI STREQUAL "auto")
  find_package(MPI QUIET COMPONENTS CXX)
elseif(NOT C2R_MPI STREQUAL "none")
  # Debian installs both side by side, told apart by the suffix of their programs.
  find_program(MPI_CXX_COMPILER mpicxx.${C2R_MPI} REQUIRED)
  find_program(MPIEXEC_EXECUTABLE mpiexec.${C2R_MPI} REQUIRED)
  find_package(MPI REQUIRED COMPONENTS CXX)
endif()
if(NOT MPI_CXX_FOUND OR C2R_MPI STREQUAL "none")
  if("transport_mpi" IN_LIST C2R_MODULES)
    message(FATAL_ERROR "c2r: C2R_MODULES names transport_mpi, but no MPI was found, with C2R_MPI=${C2R_MPI}; "
                        "install one (Debian: libopenmpi-dev)")
  endif()
  message(STATUS "c2r: no MPI, so the MPI transport is left out")
  return()
endif()
set(C2R_HAS_MPI ON)

c2r_add_modules(transport_mpi)
if(NOT C2R_BUILD_TESTS)
  return()
endif()

find_package(Python3 REQUIRED COMPONENTS Interpreter)
# The transport for each MPI that is tested. What comes after transport_mpi comes after the names of that
# MPI's programs and tests too. The first is installed; MPICH's, where it is there, is for tests alone.
set(C2R_MPI_TRANSPORTS transport_mpi)
set(C2R_MPIEXEC ${MPIEXEC_EXECUTABLE})
find_package(PkgConfig QUIET)
if(PkgConfig_FOUND)
  pkg_check_modules(mpich QUIET IMPORTED_TARGET mpich)
endif()
find_program(C2R_MPIEXEC_mpich mpiexec.mpich)
if(mpich_FOUND AND C2R_MPIEXEC_mpich AND NOT C2R_SANITIZE AND NOT MPI_CXX_INCLUDE_DIRS MATCHES mpich)
  c2r_add_module(transport_mpi_mpich FOLDER transport/mpi DEPS transport LIBS PkgConfig::mpich NO_TESTS
                 NO_INSTALL)
  list(APPEND C2R_MPI_TRANSPORTS transport_mpi_mpich)
endif()

# c2r_mpi_program(NAME SOURCE [LIBS lib...]): a program to be started by mpirun, once for each MPI.
function(c2r_mpi_program name source)
  cmake_parse_arguments(ARG "" "" "LIBS" ${ARGN})
  foreach(transport ${C2R_MPI_TRANSPORTS})
    string(REPLACE transport_mpi "" suffix ${transport})
    add_executable(${name}${suffix} ${source})
    c2r_flags(${name}${suffix})
    target_compile_definitions(${name}${suffix} PRIVATE C2R_DATA_DIR="${C2R_DATA_DIR}")
    target_link_libraries(${name}${suffix} PRIVATE ${ARG_LIBS} c2r_${transport})
  endforeach()
endfunction()

# c2r_mpi_environment(TEST): what one MPI or sanitizer is told here, others do not read.
function(c2r_mpi_environment name)
  set(suppressions ${PROJECT_SOURCE_DIR}/c2r/transport/mpi/lsan_suppressions.txt)
  set_property(TEST ${name} PROPERTY ENVIRONMENT
    OMPI_ALLOW_RUN_AS_ROOT=1 OMPI_ALLOW_RUN_AS_ROOT_CONFIRM=1 OMPI_MCA_rmaps_base_oversubscribe=1
    ASAN_OPTIONS=fast_unwind_on_malloc=0
    LSAN_OPTIONS=suppressions=${suppressions}:print_suppressions=0)
endfunction()

# What runs under the second MPI in every check; the rest is labelled "long", for `make check-long`.
set(C2R_MPI_SMOKE transport_mpi.conformance_2 transport_mpi.failures)

# c2r_mpi_test(NAME PROCESSORS ARGUMENT...): a test for each MPI. In arguments, @MPIEXEC@ is its mpiexec
# and @NAME@ the program that c2r_mpi_program(NAME) made.
function(c2r_mpi_test name processors)
  foreach(transport ${C2R_MPI_TRANSPORTS})
    string(REPLACE transport_mpi "" suffix ${transport})
    string(REPLACE "@MPIEXEC@" "${C2R_MPIEXEC${suffix}}" command "${ARGN}")
    string(REGEX REPLACE "@([a-z_0-9]+)@" "$<TARGET_FILE:\\1${suffix}>" command "${command}")
    set(labels mpi)
    if(suffix AND NOT name IN_LIST C2R_MPI_SMOKE)
      list(APPEND labels long)
    endif()
    add_test(NAME ${name}${suffix} COMMAND ${command})
    set_tests_properties(${name}${suffix} PROPERTIES TIMEOUT 600 PROCESSORS ${processors}
                                                     LABELS "${labels}")
    c2r_mpi_environment(${name}${suffix})
  endforeach()
endfunction()

# c2r_mpi_waiting_test(NAME ARGUMENT...): the same for a script whose ranks wait for each other most of the time. It
# leaves its processor to others and takes long, so it begins first.
function(c2r_mpi_waiting_test name)
  c2r_mpi_test(${name} 1 ${ARGN})
  foreach(transport ${C2R_MPI_TRANSPORTS})
    string(REPLACE transport_mpi "" suffix ${transport})
    set_tests_properties(${name}${suffix} PROPERTIES COST 1000)
  endforeach()
endfunction()

c2r_mpi_program(transport_mpi_test c2r/transport/mpi/mpi_transport_test.cc LIBS GTest::gtest)
# One rank has nobody to wait for, which is what the other suite is about.
c2r_mpi_test(transport_mpi.conformance_1 1 @MPIEXEC@ -n 1 @transport_mpi_test@
             --gtest_filter=Mpi/TransportConformance.*)
foreach(ranks 2 4)
  c2r_mpi_test(transport_mpi.conformance_${ranks} ${ranks} @MPIEXEC@ -n ${ranks} @transport_mpi_test@)
endforeach()

c2r_mpi_program(program_with_mpi c2r/transport/mpi/program_with_mpi_test.cc LIBS GTest::gtest)
c2r_mpi_test(transport_mpi.program_with_mpi 4 @MPIEXEC@ -n 4 @program_with_mpi@)

if(C2R_SANITIZE)  # which would only repeat, for minutes, what waits for time limits
  return()
endif()
c2r_mpi_program(failing_rank c2r/transport/mpi/failing_rank_test.cc)
c2r_mpi_waiting_test(transport_mpi.failures ${Python3_EXECUTABLE}
                     ${PROJECT_SOURCE_DIR}/c2r/transport/mpi/failures_test.py @MPIEXEC@ @failing_rank@)

c2r_mpi_program(transport_mpi_bench c2r/transport/mpi/exchange_bench.cc)
c2r_mpi_test(bench_transport_mpi_runs 2 @MPIEXEC@ -n 2 @transport_mpi_bench@ 1 1)
