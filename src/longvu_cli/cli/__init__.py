"""The command line: it holds no logic, and is the only place that prints."""
