# What makes a mistake with memory end a program instead of being used by a hostile file; SECURITY.md says what is on.
option(C2R_HARDEN "Harden what is built here, where it is optimised: _FORTIFY_SOURCE, stack protector, read-only relocations"
       ${PROJECT_IS_TOP_LEVEL})

# Level 3 also checks sizes that are known only at run time.
if(CMAKE_CXX_COMPILER_ID STREQUAL "GNU" AND CMAKE_CXX_COMPILER_VERSION VERSION_LESS 12)
  set(C2R_FORTIFY_LEVEL 2)
else()
  set(C2R_FORTIFY_LEVEL 3)
endif()

# Searches for placements work for minutes on arrays whose bounds their callers have checked: with the assertions of
# libstdc++ they take 1.09 to 1.24 times as long. What the other flags cost there, and all of them in routing and experts,
# is within the noise.
set(C2R_WITHOUT_ASSERTIONS c2r_placement placement_bench)

# c2r_harden(TARGET): for what is delivered, a library or a program. Whoever links a library is not told. Sanitizers
# check more, and glibc's checked functions would hide calls from them; without optimisation glibc refuses to check.
function(c2r_harden target)
  if(NOT C2R_HARDEN OR C2R_SANITIZE)
    return()
  endif()
  set(optimised CONFIG:Release,RelWithDebInfo,MinSizeRel)
  target_compile_options(${target} PRIVATE
    # First undefined, since some compilers define it themselves.
    "$<$<${optimised}>:-U_FORTIFY_SOURCE;-D_FORTIFY_SOURCE=${C2R_FORTIFY_LEVEL};-fstack-protector-strong>")
  if(NOT target IN_LIST C2R_WITHOUT_ASSERTIONS)
    target_compile_definitions(${target} PRIVATE $<$<${optimised}>:_GLIBCXX_ASSERTIONS>)
  endif()
  get_target_property(type ${target} TYPE)
  if(CMAKE_EXECUTABLE_FORMAT STREQUAL "ELF" AND NOT type STREQUAL "STATIC_LIBRARY")
    # Addresses of functions are looked up at the start and then read-only: `c2r --version` takes 8 ms as before.
    target_link_options(${target} PRIVATE LINKER:-z,relro,-z,now)
  endif()
endfunction()
