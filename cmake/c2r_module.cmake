# How a folder of c2r/ becomes a library, a test program and a benchmark program.

# For what is slow to compile with all sanitizers of the asan preset. (gcc does not know the second.)
set(C2R_ADDRESS_SANITIZER_ONLY -fno-sanitize=undefined)
if(C2R_SANITIZE MATCHES "fuzzer-no-link")
  string(APPEND C2R_ADDRESS_SANITIZER_ONLY ",fuzzer-no-link")
endif()

# c2r_flags(TARGET): the warnings, sanitizers and assertions that every target is built with.
function(c2r_flags target)
  target_compile_features(${target} PUBLIC cxx_std_20)  # what includes our headers needs it, too
  target_include_directories(${target} PUBLIC $<BUILD_INTERFACE:${PROJECT_SOURCE_DIR}>
                                              $<INSTALL_INTERFACE:include>)
  target_compile_options(${target} PRIVATE -Wall -Wextra -Wshadow -Wconversion
    # designated initialisers leave fields to their defaults on purpose
    -Wno-missing-field-initializers
    $<$<BOOL:${C2R_WARNINGS_AS_ERRORS}>:-Werror>
    # takes a source file in a unity file for a header, whose anonymous namespaces would be a mistake;
    # clang-tidy tells them apart
    $<$<CXX_COMPILER_ID:GNU>:-Wno-subobject-linkage>
    $<$<CXX_COMPILER_ID:Clang>:-Wreserved-identifier>
    # position-independent code is as fast as other code if nobody replaces our functions; clang assumes it
    $<$<CXX_COMPILER_ID:GNU>:-fno-semantic-interposition>
    # a*b+c rounds twice on every machine, so that results do not depend on the processor
    -ffp-contract=off)
  target_compile_definitions(${target} PUBLIC
    $<BUILD_INTERFACE:$<$<BOOL:${C2R_ENABLE_ASSERTS}>:C2R_ENABLE_ASSERTS>>)
  set_target_properties(${target} PROPERTIES UNITY_BUILD_CODE_BEFORE_INCLUDE
    "// NOLINTNEXTLINE(bugprone-suspicious-include)")
  if(C2R_SANITIZE)
    target_compile_options(${target} PUBLIC $<BUILD_INTERFACE:-fsanitize=${C2R_SANITIZE}>
      $<BUILD_INTERFACE:-fno-sanitize-recover=all> $<BUILD_INTERFACE:-fno-omit-frame-pointer>)
    target_link_options(${target} PUBLIC $<BUILD_INTERFACE:-fsanitize=${C2R_SANITIZE}>)
  endif()
endfunction()

# c2r_module(NAME [FOLDER folder] [SUBFOLDERS folder...] [DEPS module...] [TEST_DEPS module...]
# [LIBS lib...] [PRIVATE_LIBS lib...] [BUILD_LIBS lib...] [NO_INSTALL] [NO_TESTS] [THREADED]): declares
# one library per folder of c2r/, NAME unless given; c2r_add_modules() makes it. Files are found by
# suffix: *_test.cc become one test program, *_bench.cc one benchmark program (not with sanitizers),
# main.cc is left to c2r_program(), the rest is the library. LIBS are seen by those who include the
# module's headers, PRIVATE_LIBS only by its sources; BUILD_LIBS are headers that only its sources
# include, so a program that uses the module does not need them. With NO_TESTS the caller adds tests
# and benchmarks itself.
function(c2r_module name)
  set_property(GLOBAL APPEND PROPERTY C2R_MODULES ${name})
  set_property(GLOBAL PROPERTY C2R_ARGUMENTS_${name} "${ARGN}")
endfunction()

# c2r_select(RESULT MODULE...): the modules and all that they need, in the order of declaration. "all"
# stands for every module, "library" for every one but the program.
function(c2r_select result)
  get_property(declared GLOBAL PROPERTY C2R_MODULES)
  set(todo ${ARGN})
  if("all" IN_LIST todo OR "library" IN_LIST todo)
    set(todo ${declared})
    if(NOT "all" IN_LIST ARGN)
      list(REMOVE_ITEM todo cli)
    endif()
  endif()
  set(selected)
  while(todo)
    list(POP_FRONT todo name)
    if(NOT name IN_LIST declared)
      list(JOIN declared ", " declared)
      message(FATAL_ERROR "c2r: C2R_MODULES names '${name}'; there are all, library, ${declared}")
    endif()
    if(name IN_LIST selected)
      continue()
    endif()
    list(APPEND selected ${name})
    get_property(arguments GLOBAL PROPERTY C2R_ARGUMENTS_${name})
    c2r_parse_module(${arguments})
    list(APPEND todo ${ARG_DEPS})
    if(C2R_BUILD_TESTS)
      list(APPEND todo ${ARG_TEST_DEPS})
    endif()
  endwhile()
  foreach(name IN LISTS declared)
    if(name IN_LIST selected)
      list(APPEND ordered ${name})
    endif()
  endforeach()
  set(${result} ${ordered} PARENT_SCOPE)
endfunction()

# c2r_add_modules(MODULE...): makes declared modules; what they need must come before them.
function(c2r_add_modules)
  foreach(name ${ARGN})
    get_property(arguments GLOBAL PROPERTY C2R_ARGUMENTS_${name})
    c2r_add_module(${name} ${arguments})
  endforeach()
endfunction()

macro(c2r_parse_module)
  cmake_parse_arguments(ARG "NO_INSTALL;NO_TESTS;THREADED" "FOLDER"
                        "SUBFOLDERS;DEPS;TEST_DEPS;LIBS;PRIVATE_LIBS;BUILD_LIBS" ${ARGN})
endmacro()

# c2r_find_libraries(MODULE LIBRARY...): finds them, or says how to go on without.
function(c2r_find_libraries module)
  foreach(library ${ARGN})
    c2r_find(${library})
    if(NOT TARGET ${library})
      c2r_other(${library})
      message(FATAL_ERROR "c2r: the module ${module} needs ${library}, which was not found; install it "
        "(Debian: ${debian}), or name in C2R_MODULES only the modules that you need")
    endif()
  endforeach()
endfunction()

# c2r_add_module(NAME ...): makes a module of the arguments of c2r_module().
function(c2r_add_module name)
  c2r_parse_module(${ARGN})
  if(NOT ARG_FOLDER)
    set(ARG_FOLDER ${name})
  endif()
  c2r_find_libraries(${name} ${ARG_LIBS} ${ARG_PRIVATE_LIBS} ${ARG_BUILD_LIBS})
  list(TRANSFORM ARG_SUBFOLDERS PREPEND c2r/${ARG_FOLDER}/)
  list(TRANSFORM ARG_SUBFOLDERS APPEND /*.cc)
  file(GLOB all CONFIGURE_DEPENDS c2r/${ARG_FOLDER}/*.cc ${ARG_SUBFOLDERS})
  set(tests ${all})
  list(FILTER tests INCLUDE REGEX "_test\\.cc$")
  set(benches ${all})
  list(FILTER benches INCLUDE REGEX "_bench\\.cc$")
  list(FILTER all EXCLUDE REGEX "_(test|bench)\\.cc$|/main\\.cc$")

  add_library(c2r_${name} ${all})
  add_library(c2r::${name} ALIAS c2r_${name})
  set_target_properties(c2r_${name} PROPERTIES EXPORT_NAME ${name})
  c2r_flags(c2r_${name})
  c2r_harden(c2r_${name})
  list(TRANSFORM ARG_DEPS PREPEND c2r_)
  list(TRANSFORM ARG_TEST_DEPS PREPEND c2r_)
  target_link_libraries(c2r_${name} PUBLIC ${ARG_DEPS} ${ARG_LIBS}
                        PRIVATE ${ARG_PRIVATE_LIBS} "$<BUILD_INTERFACE:${ARG_BUILD_LIBS}>")
  if(NOT ARG_NO_INSTALL)
    set_property(GLOBAL APPEND PROPERTY C2R_INSTALLED_MODULES ${name})
  endif()

  if(NOT C2R_BUILD_TESTS OR ARG_NO_TESTS)
    return()
  endif()
  if(tests)
    add_executable(${name}_test ${tests})
    c2r_flags(${name}_test)
    target_compile_definitions(${name}_test PRIVATE C2R_DATA_DIR="${C2R_DATA_DIR}"
                                                    C2R_SOURCE_DIR="${PROJECT_SOURCE_DIR}")
    target_link_libraries(${name}_test PRIVATE c2r_${name} ${ARG_TEST_DEPS} ${ARG_PRIVATE_LIBS} ${ARG_BUILD_LIBS}
                                               GTest::gtest_main)
    # What takes long in a test, and what UBSan has to see, is the library; more would take longer to
    # compile than it saves.
    if(C2R_SANITIZE MATCHES "undefined")
      target_compile_options(${name}_test PRIVATE -O0 ${C2R_ADDRESS_SANITIZER_ONLY})
    else()
      target_compile_options(${name}_test PRIVATE $<$<CONFIG:Release>:-O1>)
    endif()
    if(ARG_THREADED)
      set(labels LABELS threaded)
      add_dependencies(threaded_tests ${name}_test)
    endif()
    gtest_discover_tests(${name}_test DISCOVERY_TIMEOUT 60 PROPERTIES TIMEOUT 300 ${labels})
  endif()
  if(benches AND NOT C2R_SANITIZE)
    add_executable(${name}_bench ${benches})
    c2r_flags(${name}_bench)
    c2r_harden(${name}_bench)  # measures the library as it is delivered
    target_compile_definitions(${name}_bench PRIVATE C2R_DATA_DIR="${C2R_DATA_DIR}")
    target_link_libraries(${name}_bench PRIVATE c2r_${name} benchmark::benchmark_main)
    # One short round, so that no benchmark rots: it verifies its result before it measures.
    add_test(NAME bench_${name}_runs
             COMMAND ${name}_bench --benchmark_min_time=0.001 --benchmark_format=console)
    set_tests_properties(bench_${name}_runs PROPERTIES TIMEOUT 300
                         FAIL_REGULAR_EXPRESSION "ERROR OCCURRED")
  endif()
endfunction()
