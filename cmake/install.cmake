# `cmake --install`: headers, libraries, the program, and c2rConfig.cmake for find_package(c2r).
include(GNUInstallDirs)
include(CMakePackageConfigHelpers)

get_property(modules GLOBAL PROPERTY C2R_INSTALLED_MODULES)
list(TRANSFORM modules PREPEND c2r_ OUTPUT_VARIABLE targets)
# All modules at once, but for MPI, which has to be asked for by name.
add_library(c2r_all INTERFACE)
add_library(c2r::c2r ALIAS c2r_all)
set_target_properties(c2r_all PROPERTIES EXPORT_NAME c2r)
set(without_mpi ${targets})
list(REMOVE_ITEM without_mpi c2r_transport_mpi)
target_link_libraries(c2r_all INTERFACE ${without_mpi})
install(TARGETS c2r_all ${targets} EXPORT c2rTargets ARCHIVE DESTINATION ${CMAKE_INSTALL_LIBDIR}
        LIBRARY DESTINATION ${CMAKE_INSTALL_LIBDIR})
install(TARGETS c2r RUNTIME DESTINATION ${CMAKE_INSTALL_BINDIR})
list(REMOVE_ITEM modules transport_mpi)  # a folder of transport
foreach(module ${modules})
  install(DIRECTORY c2r/${module} DESTINATION ${CMAKE_INSTALL_INCLUDEDIR}/c2r
          FILES_MATCHING PATTERN "*.h" PATTERN "*testing*.h" EXCLUDE
          PATTERN "*_internal.h" EXCLUDE PATTERN "*-inl.h" EXCLUDE PATTERN "search" EXCLUDE)
endforeach()
install(EXPORT c2rTargets NAMESPACE c2r:: DESTINATION ${CMAKE_INSTALL_LIBDIR}/cmake/c2r)
get_property(components GLOBAL PROPERTY C2R_INSTALLED_MODULES)
list(JOIN components ", " C2R_COMPONENTS)
configure_package_config_file(cmake/c2rConfig.cmake.in ${PROJECT_BINARY_DIR}/c2rConfig.cmake
                              INSTALL_DESTINATION ${CMAKE_INSTALL_LIBDIR}/cmake/c2r)
write_basic_package_version_file(${PROJECT_BINARY_DIR}/c2rConfigVersion.cmake
                                 COMPATIBILITY SameMinorVersion)
install(FILES ${PROJECT_BINARY_DIR}/c2rConfig.cmake ${PROJECT_BINARY_DIR}/c2rConfigVersion.cmake
        DESTINATION ${CMAKE_INSTALL_LIBDIR}/cmake/c2r)
