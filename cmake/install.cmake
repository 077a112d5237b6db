# `cmake --install`: headers, libraries and the program; c2rConfig.cmake for find_package(c2r), and
# c2r.pc and one file a module for pkg-config.
include(GNUInstallDirs)
include(CMakePackageConfigHelpers)

# c2r_pc(NAME DESCRIPTION [REQUIRES name...] [LIBS flag...] [CFLAGS flag...]): writes a file for pkg-config.
# A static library does not bring what it needs, so "Requires" and not "Requires.private" names that.
function(c2r_pc name description)
  cmake_parse_arguments(ARG "" "" "REQUIRES;LIBS;CFLAGS" ${ARGN})
  list(JOIN ARG_REQUIRES ", " requires)
  list(JOIN ARG_LIBS " " libs)
  list(JOIN ARG_CFLAGS " " cflags)
  configure_file(cmake/c2r.pc.in ${PROJECT_BINARY_DIR}/pkgconfig/${name}.pc @ONLY)
  install(FILES ${PROJECT_BINARY_DIR}/pkgconfig/${name}.pc
          DESTINATION ${CMAKE_INSTALL_LIBDIR}/pkgconfig)
endfunction()

# Paths start at the file, so that the installed tree can be moved.
if(IS_ABSOLUTE ${CMAKE_INSTALL_LIBDIR})
  set(prefix ${CMAKE_INSTALL_PREFIX})
else()
  file(RELATIVE_PATH up /${CMAKE_INSTALL_LIBDIR}/pkgconfig /)
  string(REGEX REPLACE "/$" "" up ${up})
  set(prefix "\${pcfiledir}/${up}")
endif()

get_property(modules GLOBAL PROPERTY C2R_INSTALLED_MODULES)
set(C2R_LIBRARIES_OF_COMPONENTS "")
foreach(module ${modules})
  get_property(arguments GLOBAL PROPERTY C2R_ARGUMENTS_${module})
  c2r_parse_module(${arguments})
  # What find_package() has to look for: the module's libraries and those of the modules below it.
  set(libraries ${ARG_LIBS} ${ARG_PRIVATE_LIBS})
  set(requires ${ARG_DEPS})
  list(TRANSFORM requires PREPEND c2r-)
  set(flags -lc2r_${module})
  set(cflags)
  foreach(library ${libraries})
    c2r_other(${library})
    if(library STREQUAL "MPI::MPI_CXX")
      list(APPEND flags ${MPI_CXX_LIBRARIES})
      list(TRANSFORM MPI_CXX_INCLUDE_DIRS PREPEND -I OUTPUT_VARIABLE cflags)
      # The C interface is enough; that of C++ is not free of warnings.
      list(APPEND cflags -DOMPI_SKIP_MPICXX -DMPICH_SKIP_MPICXX)
    elseif(pkg_config MATCHES "^-")
      list(APPEND flags ${pkg_config})
    else()
      list(APPEND requires ${pkg_config})
    endif()
  endforeach()
  c2r_pc(c2r-${module} "the module ${module} of c2r" REQUIRES ${requires} LIBS ${flags} CFLAGS ${cflags})
  foreach(below ${ARG_DEPS})
    list(APPEND libraries ${libraries_of_${below}})
  endforeach()
  list(REMOVE_DUPLICATES libraries)
  set(libraries_of_${module} ${libraries})
  string(APPEND C2R_LIBRARIES_OF_COMPONENTS "set(c2r_${module}_LIBRARIES ${libraries})\n")
endforeach()
set(components ${modules})
if(TARGET c2r_transport_conformance)
  list(APPEND components transport_conformance)
  string(APPEND C2R_LIBRARIES_OF_COMPONENTS
         "set(c2r_transport_conformance_LIBRARIES ${libraries_of_transport} GTest::gtest)\n")
  c2r_pc(c2r-transport_conformance "the tests of a transport" REQUIRES c2r-transport gtest)
endif()
set(unasked transport_mpi transport_conformance)  # part of c2r::c2r only where they are asked for
set(asked ${components})
list(REMOVE_ITEM asked ${unasked})
list(TRANSFORM asked PREPEND c2r- OUTPUT_VARIABLE requires)
c2r_pc(c2r "${PROJECT_DESCRIPTION}" REQUIRES ${requires})

list(TRANSFORM components PREPEND c2r_ OUTPUT_VARIABLE targets)
install(TARGETS ${targets} EXPORT c2rTargets ARCHIVE DESTINATION ${CMAKE_INSTALL_LIBDIR}
        LIBRARY DESTINATION ${CMAKE_INSTALL_LIBDIR})
install(EXPORT c2rTargets NAMESPACE c2r:: DESTINATION ${CMAKE_INSTALL_LIBDIR}/cmake/c2r)
if(TARGET c2r)
  install(TARGETS c2r RUNTIME DESTINATION ${CMAKE_INSTALL_BINDIR})
  install(FILES c2r/cli/completion.bash RENAME c2r
          DESTINATION ${CMAKE_INSTALL_DATADIR}/bash-completion/completions)
  install(CODE "execute_process(COMMAND \"$<TARGET_FILE:c2r>\" --man COMMAND_ERROR_IS_FATAL ANY
                                OUTPUT_FILE \"${PROJECT_BINARY_DIR}/c2r.1\")")
  install(FILES ${PROJECT_BINARY_DIR}/c2r.1 DESTINATION ${CMAKE_INSTALL_MANDIR}/man1)
endif()
list(REMOVE_ITEM modules transport_mpi)  # a folder of transport
foreach(module ${modules})
  install(DIRECTORY c2r/${module} DESTINATION ${CMAKE_INSTALL_INCLUDEDIR}/c2r
          FILES_MATCHING PATTERN "*.h" PATTERN "*testing*.h" EXCLUDE
          PATTERN "*_internal.h" EXCLUDE PATTERN "*-inl.h" EXCLUDE PATTERN "search" EXCLUDE
          PATTERN "config" EXCLUDE PATTERN "cuda_*.h" EXCLUDE PATTERN "nccl" EXCLUDE
          PATTERN "cublas" EXCLUDE)
endforeach()
configure_package_config_file(cmake/c2rConfig.cmake.in ${PROJECT_BINARY_DIR}/c2rConfig.cmake
                              INSTALL_DESTINATION ${CMAKE_INSTALL_LIBDIR}/cmake/c2r
                              NO_CHECK_REQUIRED_COMPONENTS_MACRO)
write_basic_package_version_file(${PROJECT_BINARY_DIR}/c2rConfigVersion.cmake
                                 COMPATIBILITY SameMinorVersion)
install(FILES ${PROJECT_BINARY_DIR}/c2rConfig.cmake ${PROJECT_BINARY_DIR}/c2rConfigVersion.cmake
        cmake/c2r_libraries.cmake DESTINATION ${CMAKE_INSTALL_LIBDIR}/cmake/c2r)
