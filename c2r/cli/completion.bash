# Completion of c2r in bash: the program itself says how a command line can continue.
_c2r() {
  mapfile -t COMPREPLY < <("$1" --complete "${COMP_WORDS[@]:1:COMP_CWORD}" 2>/dev/null)
}
# Where the program says nothing, bash completes the names of files.
complete -o bashdefault -o default -F _c2r c2r
