"""Train with a loop you can read, record what every layer did, and be told what is wrong."""

__version__ = "0.1.0"
