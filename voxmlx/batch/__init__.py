"""Archives: any number of recordings to files, on one device or many, and on again after a crash.

What is done is what lies in the output folder, nothing else: every output appears under its name
only when it is whole.
"""
