# The MPI transport, and how its tests are started.
set(C2R_MPI "auto" CACHE STRING
    "MPI to build with: openmpi or mpich (Debian's), auto (what CMake finds, if any), none")
set_property(CACHE C2R_MPI PROPERTY STRINGS auto openmpi mpich none)
set(C2R_HAS_MPI OFF)
if(DEFINED C2R_MPI_FOUND AND NOT C2R_MPI STREQUAL C2R_MPI_FOUND)  # what was found for another one
  get_cmake_property(cached CACHE_VARIABLES)
  list(FILTER cached INCLUDE REGEX "^(MPI_|MPIEXEC_)")
  foreach(name ${cached})
    unset(${name} CACHE)
  endforeach()
endif()
set(C2R_MPI_FOUND ${C2R_MPI} CACHE INTERNAL "the C2R_MPI of the last configuration")
if(C2R_MPI STREQUAL "none")
  return()
endif()

set(MPI_CXX_SKIP_MPICXX ON)  # we use the C interface
if(C2R_MPI STREQUAL "auto")
  find_package(MPI QUIET COMPONENTS CXX)
  if(NOT MPI_CXX_FOUND)
    message(STATUS "c2r: no MPI was found, so the MPI transport is left out")
    return()
  endif()
else()
  # Debian installs both side by side, told apart by the suffix of their programs.
  find_program(MPI_CXX_COMPILER mpicxx.${C2R_MPI} REQUIRED)
  find_program(MPIEXEC_EXECUTABLE mpiexec.${C2R_MPI} REQUIRED)
  find_package(MPI REQUIRED COMPONENTS CXX)
endif()
set(C2R_HAS_MPI ON)

c2r_module(transport_mpi FOLDER transport/mpi DEPS transport LIBS MPI::MPI_CXX NO_TESTS)
if(NOT C2R_BUILD_TESTS)
  return()
endif()

find_package(Python3 REQUIRED COMPONENTS Interpreter)
# The transport for each MPI that is tested. What comes after transport_mpi comes after the names of that
# MPI's programs and tests too. The first is installed; MPICH's, where it is there, is for tests alone.
set(C2R_MPI_TRANSPORTS transport_mpi)
set(C2R_MPIEXEC ${MPIEXEC_EXECUTABLE})
pkg_check_modules(mpich IMPORTED_TARGET mpich)
find_program(C2R_MPIEXEC_mpich mpiexec.mpich)
if(mpich_FOUND AND C2R_MPIEXEC_mpich AND NOT C2R_SANITIZE AND NOT MPI_CXX_INCLUDE_DIRS MATCHES mpich)
  c2r_module(transport_mpi_mpich FOLDER transport/mpi DEPS transport LIBS PkgConfig::mpich NO_TESTS
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

# c2r_mpi_test(NAME PROCESSORS ARGUMENT...): a test for each MPI. In arguments, @MPIEXEC@ is its mpiexec
# and @NAME@ the program that c2r_mpi_program(NAME) made.
function(c2r_mpi_test name processors)
  foreach(transport ${C2R_MPI_TRANSPORTS})
    string(REPLACE transport_mpi "" suffix ${transport})
    string(REPLACE "@MPIEXEC@" "${C2R_MPIEXEC${suffix}}" command "${ARGN}")
    string(REGEX REPLACE "@([a-z_0-9]+)@" "$<TARGET_FILE:\\1${suffix}>" command "${command}")
    add_test(NAME ${name}${suffix} COMMAND ${command})
    set_tests_properties(${name}${suffix} PROPERTIES TIMEOUT 600 PROCESSORS ${processors})
    c2r_mpi_environment(${name}${suffix})
  endforeach()
endfunction()

c2r_mpi_program(transport_mpi_test c2r/transport/mpi/mpi_transport_test.cc LIBS GTest::gtest)
# One rank has nobody to wait for, which is what the other suite is about.
c2r_mpi_test(transport_mpi.conformance_1 1 @MPIEXEC@ -n 1 @transport_mpi_test@
             --gtest_filter=Mpi/TransportConformance.*)
foreach(ranks 2 4)
  c2r_mpi_test(transport_mpi.conformance_${ranks} ${ranks} @MPIEXEC@ -n ${ranks} @transport_mpi_test@)
endforeach()

c2r_mpi_program(failing_rank c2r/transport/mpi/failing_rank_test.cc)
# Its ranks wait for each other most of the time.
c2r_mpi_test(transport_mpi.failures 1 ${Python3_EXECUTABLE}
             ${PROJECT_SOURCE_DIR}/c2r/transport/mpi/failures_test.py @MPIEXEC@ @failing_rank@)

c2r_mpi_program(transport_mpi_bench c2r/transport/mpi/exchange_bench.cc)
c2r_mpi_test(bench_transport_mpi_runs 2 @MPIEXEC@ -n 2 @transport_mpi_bench@ 1 1)
