"""A script that was announced as a plugin."""

import sys

sys.exit(3)
