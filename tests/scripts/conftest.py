"""The scripts here are run by tests/observe, never imported."""

collect_ignore_glob = ["*.py"]
