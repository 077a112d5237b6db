# The MPI transport, and how its tests are started.
set(C2R_MPI "auto" CACHE STRING
    "MPI to build with: openmpi or mpich (Debian's), auto (what CMake finds, if any), none")
set_property(CACHE C2R_MPI PROPERTY STRINGS auto openmpi mpich none)
set(C2R_HAS_MPI OFF)
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
add_custom_target(mpi_tests)  # what is tested with each MPI

# c2r_mpi_program(NAME SOURCE [LIBS lib...]): a program to be started by mpirun.
function(c2r_mpi_program name source)
  cmake_parse_arguments(ARG "" "" "LIBS" ${ARGN})
  add_executable(${name} ${source})
  c2r_flags(${name})
  target_compile_definitions(${name} PRIVATE C2R_DATA_DIR="${C2R_DATA_DIR}")
  target_link_libraries(${name} PRIVATE c2r_transport_mpi ${ARG_LIBS})
  add_dependencies(mpi_tests ${name})
endfunction()

# c2r_mpi_environment(TEST): what one MPI or sanitizer is told here, others do not read.
function(c2r_mpi_environment name)
  set(suppressions ${PROJECT_SOURCE_DIR}/c2r/transport/mpi/lsan_suppressions.txt)
  set_property(TEST ${name} PROPERTY ENVIRONMENT
    OMPI_ALLOW_RUN_AS_ROOT=1 OMPI_ALLOW_RUN_AS_ROOT_CONFIRM=1 OMPI_MCA_rmaps_base_oversubscribe=1
    ASAN_OPTIONS=fast_unwind_on_malloc=0
    LSAN_OPTIONS=suppressions=${suppressions}:print_suppressions=0)
endfunction()

# c2r_mpi_test(NAME RANKS COMMAND...)
function(c2r_mpi_test name ranks)
  add_test(NAME ${name} COMMAND ${ARGN})
  set_tests_properties(${name} PROPERTIES LABELS mpi TIMEOUT 600 PROCESSORS ${ranks})
  c2r_mpi_environment(${name})
endfunction()

c2r_mpi_program(transport_mpi_test c2r/transport/mpi/mpi_transport_test.cc LIBS GTest::gtest)
foreach(ranks 1 2 4)
  c2r_mpi_test(transport_mpi.conformance_${ranks} ${ranks}
               ${MPIEXEC_EXECUTABLE} -n ${ranks} $<TARGET_FILE:transport_mpi_test>)
endforeach()

c2r_mpi_program(failing_rank c2r/transport/mpi/failing_rank_test.cc)
c2r_mpi_test(transport_mpi.failures 4
             ${Python3_EXECUTABLE} ${PROJECT_SOURCE_DIR}/c2r/transport/mpi/failures_test.py
             ${MPIEXEC_EXECUTABLE} $<TARGET_FILE:failing_rank>)

c2r_mpi_program(transport_mpi_bench c2r/transport/mpi/exchange_bench.cc)
c2r_mpi_test(bench_transport_mpi_runs 2 ${MPIEXEC_EXECUTABLE} -n 2
             $<TARGET_FILE:transport_mpi_bench> 1 1)
