"""Where compiled programs are kept."""

from __future__ import annotations

import os

import jax


def keep_programs() -> None:
    """Compiled programs stay on disk, so that the next run starts at once; a folder that is set already is kept.

    JAX_COMPILATION_CACHE_DIR names another folder than ~/.cache/desta_jax/programs.
    """
    if jax.config.jax_compilation_cache_dir is None:
        cache = os.environ.get("XDG_CACHE_HOME") or os.path.expanduser("~/.cache")
        jax.config.update("jax_compilation_cache_dir", os.path.join(cache, "desta_jax", "programs"))
        jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.5)
