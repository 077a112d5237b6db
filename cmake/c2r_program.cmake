# The program c2r, for each MPI that there is.

# c2r_program(NAME MAIN DEPS module...): a program of modules.
function(c2r_program name main)
  cmake_parse_arguments(ARG "" "" "DEPS" ${ARGN})
  add_executable(${name} ${main})
  c2r_flags(${name})
  c2r_harden(${name})
  list(TRANSFORM ARG_DEPS PREPEND c2r_)
  target_link_libraries(${name} PRIVATE ${ARG_DEPS})
endfunction()

# Nothing in commands is hot, and CLI11's headers are slow to compile: per file 9 s with -O3, 6 s with
# -O1; 12 s with both sanitizers and -O1, 4 s so.
if(C2R_SANITIZE MATCHES "undefined")
  target_compile_options(c2r_cli PRIVATE -O0 ${C2R_ADDRESS_SANITIZER_ONLY})
else()
  target_compile_options(c2r_cli PRIVATE $<$<CONFIG:Release>:-O1>)
endif()
# Alone, so that all other files of a program with MPI are compiled as for one without.
set_source_files_properties(c2r/cli/ranks.cc PROPERTIES SKIP_UNITY_BUILD_INCLUSION ON)
if(C2R_HAS_MPI)
  set_source_files_properties(c2r/cli/ranks.cc PROPERTIES COMPILE_DEFINITIONS C2R_HAVE_MPI)
  set(c2r_mpi transport_mpi)
endif()
c2r_program(c2r c2r/cli/main.cc DEPS cli ${c2r_mpi})
if(TARGET c2r_transport_mpi_mpich)
  c2r_program(c2r_mpich c2r/cli/main.cc DEPS cli transport_mpi_mpich)
endif()
if(C2R_HAS_CUDA)  # not built by `all`, as all of cmake/c2r_cuda.cmake
  c2r_program(c2r_cuda_program c2r/cli/cuda/main.cc DEPS cli cuda ${c2r_mpi})
  target_sources(c2r_cuda_program PRIVATE c2r/bench/cuda/cuda_bench_device.cc)
  set_target_properties(c2r_cuda_program PROPERTIES OUTPUT_NAME c2r-cuda EXCLUDE_FROM_ALL ON)
  if(C2R_NCCL_INCLUDE AND C2R_nccl_LIBRARY)
    target_compile_definitions(c2r_cuda_program PRIVATE C2R_HAVE_NCCL)
  endif()
endif()
