"""The broken and well-formed files of each subject, which make_files.py writes into two folders.

Each module has write_broken(write) and write_well_formed(write); write(NAME, DATA) makes the file
NAME, which is LOADER/FILE, of bytes or text. Other functions that make files take `write` too.
"""
