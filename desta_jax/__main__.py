"""`python -m desta_jax` is the `desta-jax` command."""

import sys

from desta_jax.cli import main

sys.exit(main())
