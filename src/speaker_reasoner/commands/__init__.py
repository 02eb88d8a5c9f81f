"""The longer commands of the command line, one module each; heavy modules are imported when a command runs."""
