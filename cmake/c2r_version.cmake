# Tells c2r/core/version.cc, and no other file, which version, commit and compiler it is built from.
find_package(Git QUIET)
set(commit "unknown")
if(GIT_FOUND)
  execute_process(COMMAND ${GIT_EXECUTABLE} describe --always --dirty --abbrev=12
                  WORKING_DIRECTORY ${PROJECT_SOURCE_DIR} OUTPUT_VARIABLE described
                  OUTPUT_STRIP_TRAILING_WHITESPACE ERROR_QUIET)
  if(described)
    set(commit ${described})
  endif()
endif()
set_source_files_properties(c2r/core/version.cc PROPERTIES COMPILE_DEFINITIONS
  "C2R_VERSION=\"${PROJECT_VERSION}\";C2R_COMMIT=\"${commit}\";C2R_COMPILER=\"${CMAKE_CXX_COMPILER_ID} ${CMAKE_CXX_COMPILER_VERSION}\"")
