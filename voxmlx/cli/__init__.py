"""The command line: one file for each command, and what they share.

The only part of the package that prints: text and results to standard output, everything else to
standard error. Exit codes: 0 done, 1 failed, 2 wrong usage, 130 interrupted.
"""
