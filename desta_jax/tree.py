"""Paths in parameter trees, such as "lm.layers.attention.q.kernel": name, match, count, compare, tell apart."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Callable, Mapping
from typing import Any

import jax
import numpy as np

Tree = Any  # nested dicts whose leaves are arrays, or anything with a shape and a dtype


def flatten(tree: Tree, prefix: str = "") -> dict[str, Any]:
    """Leaves by path, in sorted order of their paths."""
    leaves = {}
    for key in sorted(tree):
        path = f"{prefix}.{key}" if prefix else str(key)
        if isinstance(tree[key], Mapping):
            leaves.update(flatten(tree[key], path))
        else:
            leaves[path] = tree[key]
    return leaves


def unflatten(leaves: Mapping[str, Any]) -> Tree:
    """The nested dict of leaves by path."""
    tree: dict = {}
    for path, leaf in leaves.items():
        *parents, name = path.split(".")
        node = tree
        for parent in parents:
            node = node.setdefault(parent, {})
        node[name] = leaf
    return tree


def map_with_path(function: Callable[[str, Any], Any], tree: Tree) -> Tree:
    """The tree of function(path, leaf)."""
    return unflatten({path: function(path, leaf) for path, leaf in flatten(tree).items()})


def match(pattern: str, path: str) -> bool:
    """Whether a regular expression matches the end of a path, at a whole name: "q.kernel" matches "a.q.kernel"."""
    return re.search(rf"(^|\.)(?:{pattern})$", path) is not None


def count(tree: Tree) -> int:
    """The number of parameters."""
    return sum(int(np.prod(leaf.shape)) for leaf in flatten(tree).values())


def digest(tree: Tree) -> str:
    """The same for the same numbers in the same order of leaves; they are read from their devices."""
    found = hashlib.blake2b(digest_size=8)
    for leaf in jax.tree.leaves(tree):
        found.update(np.asarray(leaf).tobytes())
    return found.hexdigest()


def abstract(tree: Tree, dtype=None) -> Tree:
    """Shapes and dtypes only; `dtype` overrides every leaf's own."""
    return jax.tree.map(lambda leaf: jax.ShapeDtypeStruct(leaf.shape, dtype or leaf.dtype), tree)


def differences(got: Tree, expected: Tree) -> list[str]:
    """One line for each leaf that is missing, unexpected or of another shape; empty if the trees agree."""
    have, want = flatten(got), flatten(expected)
    lines = [f"{path} is missing (shape {tuple(want[path].shape)})" for path in want if path not in have]
    lines += [f"{path} is unexpected (shape {tuple(have[path].shape)})" for path in have if path not in want]
    lines += [
        f"{path} has shape {tuple(have[path].shape)}, expected {tuple(want[path].shape)}"
        for path in want
        if path in have and tuple(have[path].shape) != tuple(want[path].shape)
    ]
    return lines
