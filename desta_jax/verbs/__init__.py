"""The doors of the command line: one file a verb, which imports its room when it is called."""
