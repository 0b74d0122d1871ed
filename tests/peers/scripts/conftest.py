"""The scripts here are run by tests/peers, never imported."""

collect_ignore_glob = ["*.py"]
