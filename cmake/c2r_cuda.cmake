# What runs on NVIDIA GPUs: the library c2r_cuda, of the .cu files and of the .cc files named below, and the
# library c2r_cuda_operators, for the Python package. They are built where nvcc is found. Nothing else needs
# them: all other code of c2r/*/cuda and c2r/transport/device is part of its module and tested on the host.
#
# C2R_NVCC is the nvcc; without it nvcc is looked for in PATH, in CUDA_HOME and in /usr/local/cuda.
# PyPI's nvcc and libraries will do (docs/dependencies.md says which).
set(C2R_CUDA "auto" CACHE STRING "Build for NVIDIA GPUs: auto (where nvcc is found), on, off")
set_property(CACHE C2R_CUDA PROPERTY STRINGS auto on off)
set(C2R_CUDA_ARCHITECTURES "90a" CACHE STRING "GPU architectures to compile for, as in sm_90a")
set(C2R_HAS_CUDA OFF CACHE INTERNAL "whether there are the targets c2r_cuda and cuda_test")
if(C2R_CUDA STREQUAL "off" OR NOT TARGET c2r_dispatch OR NOT TARGET c2r_experts)
  return()
endif()
find_program(C2R_NVCC nvcc HINTS ENV CUDA_HOME PATHS /usr/local/cuda PATH_SUFFIXES bin)
if(NOT C2R_NVCC)
  if(C2R_CUDA STREQUAL "on")
    message(FATAL_ERROR "c2r: C2R_CUDA is on, but no nvcc was found; name it by -DC2R_NVCC=...; "
                        "docs/dependencies.md says where nvcc is from")
  endif()
  message(STATUS "c2r: no nvcc, so what runs on NVIDIA GPUs is left out")
  return()
endif()

# nvcc may be a script that calls the real one, so ask it where it is.
execute_process(COMMAND ${C2R_NVCC} --dryrun -x cu /dev/null ERROR_VARIABLE dry_run OUTPUT_QUIET)
string(REGEX MATCH "#\\$ _HERE_=([^\n]+)" here "${dry_run}")
get_filename_component(C2R_CUDA_ROOT "${CMAKE_MATCH_1}/.." ABSOLUTE)
foreach(library cudart cublas nccl)
  find_library(C2R_${library}_LIBRARY NAMES ${library} lib${library}.so.13 lib${library}.so.2
               PATHS ${C2R_CUDA_ROOT} PATH_SUFFIXES lib lib64 NO_DEFAULT_PATH)
  find_library(C2R_${library}_LIBRARY ${library})
endforeach()
find_path(C2R_CUBLAS_INCLUDE cublas_v2.h PATHS ${C2R_CUDA_ROOT}/include NO_DEFAULT_PATH)
find_path(C2R_CUDA_INCLUDE cuda_runtime.h PATHS ${C2R_CUDA_ROOT}/include NO_DEFAULT_PATH)
find_path(C2R_NCCL_INCLUDE nccl.h PATHS ${C2R_CUDA_ROOT}/include)
foreach(part cudart_LIBRARY cublas_LIBRARY CUDA_INCLUDE CUBLAS_INCLUDE)
  if(NOT C2R_${part})
    message(STATUS "c2r: C2R_${part} was not found in ${C2R_CUDA_ROOT}, so what runs on NVIDIA GPUs is left "
                   "out; docs/dependencies.md names the packages")
    return()
  endif()
endforeach()
set(C2R_HAS_CUDA ON CACHE INTERNAL "")

# The kernels. nvcc is called by name, since CMake's own support for it links programs to look at the
# compiler, which takes a minute. fmt takes nvcc for a compiler without constexpr, and
# --fmad=false keeps the bits of the host.
set(generate)
foreach(architecture ${C2R_CUDA_ARCHITECTURES})
  list(APPEND generate -gencode arch=compute_${architecture},code=sm_${architecture})
endforeach()
file(GLOB kernels CONFIGURE_DEPENDS c2r/*/cuda/*.cu python/src/cuda/*.cu)
set(objects)
set(operator_objects)
foreach(kernel ${kernels})
  get_filename_component(name ${kernel} NAME_WE)
  set(object ${PROJECT_BINARY_DIR}/cuda/${name}.o)
  add_custom_command(OUTPUT ${object} DEPFILE ${object}.d DEPENDS ${kernel} VERBATIM
    COMMAND ${C2R_NVCC} -std=c++20 -O2 --expt-relaxed-constexpr --fmad=false -Werror all-warnings
            -Xcompiler -fPIC -DFMT_USE_CONSTEXPR=1 ${generate} -I ${PROJECT_SOURCE_DIR} -I ${C2R_CUDA_INCLUDE}
            -MD -MF ${object}.d -c ${kernel} -o ${object}
    COMMENT "nvcc ${name}.cu for ${C2R_CUDA_ARCHITECTURES}")
  if(kernel MATCHES "/python/src/cuda/[^/]*$")
    list(APPEND operator_objects ${object})
  else()
    list(APPEND objects ${object})
  endif()
endforeach()
file(MAKE_DIRECTORY ${PROJECT_BINARY_DIR}/cuda)
add_custom_target(cuda_kernels DEPENDS ${objects} ${operator_objects})

# What is only declared here is not built by `all`: the targets c2r_cuda and cuda_test are asked for.
set(sources c2r/core/cuda/cuda_stream.cc c2r/experts/cublas/cublas_products.cc)
if(C2R_NCCL_INCLUDE AND C2R_nccl_LIBRARY)
  list(APPEND sources c2r/transport/nccl/nccl_calls.cc)
else()
  message(STATUS "c2r: no NCCL, so GPUs exchange rows through host memory only")
endif()
add_library(c2r_cuda STATIC EXCLUDE_FROM_ALL ${sources} ${objects})
c2r_flags(c2r_cuda)
c2r_harden(c2r_cuda)  # not the kernels, which nvcc compiles by its own command
target_include_directories(c2r_cuda SYSTEM PRIVATE ${C2R_CUDA_INCLUDE} $<$<BOOL:${C2R_NCCL_INCLUDE}>:${C2R_NCCL_INCLUDE}>)
target_link_libraries(c2r_cuda PUBLIC c2r_dispatch c2r_experts c2r_routing ${C2R_cublas_LIBRARY} ${C2R_cudart_LIBRARY}
  $<$<BOOL:${C2R_nccl_LIBRARY}>:${C2R_nccl_LIBRARY}>)

# With the CUDA runtime linked in, so that the extension module needs only a driver, whichever runtime PyTorch has.
find_library(C2R_cudart_static_LIBRARY NAMES libcudart_static.a PATHS ${C2R_CUDA_ROOT} PATH_SUFFIXES lib lib64)
if(C2R_cudart_static_LIBRARY)
  find_package(Threads REQUIRED)
  add_library(c2r_cuda_operators STATIC EXCLUDE_FROM_ALL c2r/core/cuda/cuda_stream.cc ${operator_objects})
  c2r_flags(c2r_cuda_operators)
  c2r_harden(c2r_cuda_operators)
  target_include_directories(c2r_cuda_operators SYSTEM PRIVATE ${C2R_CUDA_INCLUDE})
  target_link_libraries(c2r_cuda_operators PUBLIC c2r_core ${C2R_cudart_static_LIBRARY} Threads::Threads
    ${CMAKE_DL_LIBS} rt)
else()
  message(STATUS "c2r: no libcudart_static.a, so the Python package has no kernels for NVIDIA GPUs")
endif()

if(C2R_BUILD_TESTS AND TARGET c2r_model)
  file(GLOB tests CONFIGURE_DEPENDS tests/gpu/*_test.cc)
  add_executable(cuda_test EXCLUDE_FROM_ALL ${tests})
  c2r_flags(cuda_test)
  target_link_libraries(cuda_test PRIVATE c2r_cuda c2r_model GTest::gtest_main)
endif()
