"""Options that pytest has to know before it reads its arguments.

Here, and not in tests: pytest looks beside any existing file that its command line names, such as the table
of `--claims-json FILE` when it is written a second time.
"""

pytest_plugins = ["tests.claims.plugin", "pytester"]
