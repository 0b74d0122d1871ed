"""``python -m actograph``."""

from actograph.cli.main import main

main()
