"""The small layers that every model here is made of; they compute in their input's dtype."""

from __future__ import annotations

from collections.abc import Callable

import jax
import jax.numpy as jnp
from flax import nnx
from jaxtyping import Array, Float, Key

from desta_jax.tree import Tree


@jax.custom_vjp
def multiply_rounded(
    x: Float[Array, "*batch inputs"], kernel: Float[Array, "inputs outputs"]
) -> Float[Array, "*batch outputs"]:
    """x @ kernel, both rounded to bfloat16 and summed in float32, as are its gradients: a TPU's own float32 product.

    Said in full, since a CPU with instructions for it multiplies bfloat16 twice as fast as float32 when the sums stay
    float32, and heeds no precision that is asked of a float32 product.
    """
    return _rounded("...i,io->...o", x, kernel)


def _multiply_forward(x, kernel):
    return multiply_rounded(x, kernel), (x, kernel)


def _multiply_backward(residuals, slope):
    x, kernel = residuals
    rows, slopes = (array.reshape(-1, array.shape[-1]) for array in (x, slope))
    return _rounded("...o,io->...i", slope, kernel), _rounded("ni,no->io", rows, slopes)


multiply_rounded.defvjp(_multiply_forward, _multiply_backward)


def _rounded(product, left, right):
    left, right = (array.astype(jnp.bfloat16) for array in (left, right))
    return jnp.einsum(product, left, right, preferred_element_type=jnp.float32)


class Linear(nnx.Module):
    """y = x W + b, drawn as PyTorch's default: both uniform within 1 / sqrt(inputs).

    In float32 under jax.default_matmul_precision("bfloat16") the product is rounded, on every platform.
    """

    def __init__(self, inputs: int, outputs: int, *, bias: bool = True, key: Key[Array, ""]):
        kernel_key, bias_key = jax.random.split(key)
        bound = inputs**-0.5
        self.kernel = nnx.Param(jax.random.uniform(kernel_key, (inputs, outputs), minval=-bound, maxval=bound))
        self.bias = nnx.Param(jax.random.uniform(bias_key, (outputs,), minval=-bound, maxval=bound)) if bias else None

    def __call__(self, x: Float[Array, "*batch inputs"]) -> Float[Array, "*batch outputs"]:
        rounds = x.dtype == jnp.float32 and jax.config.jax_default_matmul_precision == "bfloat16"
        y = (multiply_rounded if rounds else jnp.matmul)(x, self.kernel.astype(x.dtype))
        return y if self.bias is None else y + self.bias.astype(x.dtype)


class LayerNorm(nnx.Module):
    """Mean and variance over the last axis, in float32."""

    def __init__(self, width: int, *, epsilon: float):
        self.scale = nnx.Param(jnp.ones(width))
        self.bias = nnx.Param(jnp.zeros(width))
        self.epsilon = epsilon

    def __call__(self, x: Float[Array, "*batch width"]) -> Float[Array, "*batch width"]:
        x32 = x.astype(jnp.float32)
        centred = x32 - x32.mean(-1, keepdims=True)
        y = centred * jax.lax.rsqrt(jnp.square(centred).mean(-1, keepdims=True) + self.epsilon)
        return (y * self.scale.astype(jnp.float32) + self.bias.astype(jnp.float32)).astype(x.dtype)


class RMSNorm(nnx.Module):
    """Root mean square over the last axis, in float32; scaled in the input's dtype, as transformers' LlamaRMSNorm."""

    def __init__(self, width: int, *, epsilon: float):
        self.scale = nnx.Param(jnp.ones(width))
        self.epsilon = epsilon

    def __call__(self, x: Float[Array, "*batch width"]) -> Float[Array, "*batch width"]:
        x32 = x.astype(jnp.float32)
        y = x32 * jax.lax.rsqrt(jnp.square(x32).mean(-1, keepdims=True) + self.epsilon)
        return self.scale.astype(x.dtype) * y.astype(x.dtype)


class Conv1d(nnx.Module):
    """Convolution over time with a window of 3 and one step of padding on each side."""

    def __init__(self, inputs: int, outputs: int, *, stride: int, key: Key[Array, ""]):
        bound = (3 * inputs) ** -0.5
        self.kernel = nnx.Param(jax.random.uniform(key, (3, inputs, outputs), minval=-bound, maxval=bound))
        self.bias = nnx.Param(jnp.zeros(outputs))
        self.stride = stride

    def __call__(self, x: Float[Array, "batch time inputs"]) -> Float[Array, "batch steps outputs"]:
        y = jax.lax.conv_general_dilated(
            x, self.kernel.astype(x.dtype), (self.stride,), ((1, 1),), dimension_numbers=("NWC", "WIO", "NWC")
        )
        return y + self.bias.astype(x.dtype)


class GeluMLP(nnx.Module):
    """up, exact (erf) GELU, down: the MLP of Whisper and of the Q-Former."""

    def __init__(self, width: int, mlp_width: int, *, key: Key[Array, ""]):
        up_key, down_key = jax.random.split(key)
        self.up = Linear(width, mlp_width, key=up_key)
        self.down = Linear(mlp_width, width, key=down_key)

    def __call__(self, x: Float[Array, "*batch width"]) -> Float[Array, "*batch width"]:
        return self.down(jax.nn.gelu(self.up(x), approximate=False))


def dropout(x: Float[Array, "..."], rate: float, key: Key[Array, ""] | None) -> Float[Array, "..."]:
    """Zeroes a share `rate` of the elements and scales up the rest; without a key, nothing."""
    if key is None or rate == 0:
        return x
    kept = jax.random.bernoulli(key, 1 - rate, x.shape)
    return jnp.where(kept, x / (1 - rate), 0)


def split_or_none(key: Key[Array, ""] | None, count: int) -> list[Key[Array, ""] | None]:
    """`count` keys; without a key, as many times None."""
    return [None] * count if key is None else list(jax.random.split(key, count))


def stack(make: Callable[[Key[Array, ""]], nnx.Module], count: int, key: Key[Array, ""]) -> nnx.Module:
    """`count` layers as one module whose arrays have a leading axis of layers, for jax.lax.scan."""
    return jax.vmap(make)(jax.random.split(key, count))


def to_tree(module: nnx.Module) -> Tree:
    """A module's parameters as plain nested dicts."""
    return nnx.to_pure_dict(nnx.state(module))


def with_tree(module: nnx.Module, tree: Tree) -> nnx.Module:
    """A module of this structure (its own arrays may be abstract) that holds the tree's arrays."""
    graph, state = nnx.split(module)
    nnx.replace_by_pure_dict(state, tree)
    return nnx.merge(graph, state)
