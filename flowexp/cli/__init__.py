"""The command line: from arguments to a run folder, a config and the parts that it names."""
