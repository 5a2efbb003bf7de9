"""jaxopt's and optimistix' Levenberg–Marquardt under vmap, run by `many_peers.jax_fits`.

Needs JAX and no torch: python many_jax.py TASK DTYPE DEVICE GIVEN.npz TAKEN.npz. It prints the
seconds of each peer as JSON and leaves the parameters in TAKEN.npz.
"""

import json
import os
import sys
import time

import numpy as np

KIND, DTYPE, DEVICE, GIVEN, TAKEN = sys.argv[1:]
os.environ["JAX_PLATFORMS"] = "cuda" if DEVICE == "cuda" else "cpu"
os.environ["XLA_PYTHON_CLIENT_PREALLOCATE"] = "false"
if DEVICE == "cpu":  # one thread against one thread
    os.environ["XLA_FLAGS"] = "--xla_cpu_multi_thread_eigen=false"
    os.sched_setaffinity(0, {min(os.sched_getaffinity(0))})

# JAX reads the settings above while it is imported, and counts the cores that it may use
import jax  # noqa: E402  # below the settings, which it reads while it is imported
import jax.numpy as jnp  # noqa: E402  # it imports jax, so below the settings as well

if DTYPE == "float64":
    jax.config.update("jax_enable_x64", True)

TOLERANCE = 1e-8 if DTYPE == "float64" else 1e-5
REPEATS = 3


def peak(p, t):
    """A Gaussian on a background."""
    return p[0] * jnp.exp(-0.5 * ((t - p[1]) / p[2]) ** 2) + p[3]


def spot(p, at):
    """A round Gaussian on a background."""
    squared = (at[0] - p[1]) ** 2 + (at[1] - p[2]) ** 2
    return p[0] * jnp.exp(-0.5 * squared / p[3] ** 2) + p[4]


def decay(p, t):
    """An exponential on a background."""
    return p[0] * jnp.exp(-p[1] * t) + p[2]


MODELS = {"peaks": peak, "2-D spots": spot, "decays": decay}


def jaxopt_lm(model, start, x):
    """jaxopt's, by Cholesky on the normal equations, which is its quickest way here."""
    from jaxopt import LevenbergMarquardt

    solver = LevenbergMarquardt(
        residual_fun=lambda p, y: model(p, x) - y,
        solver="cholesky",
        materialize_jac=True,
        tol=TOLERANCE,
        maxiter=50,
    )
    return jax.jit(jax.vmap(lambda y: solver.run(start, y).params))


def optimistix_lm(model, start, x):
    """optimistix', by Cholesky of the normal equations likewise."""
    import lineax
    import optimistix

    solver = optimistix.LevenbergMarquardt(
        rtol=TOLERANCE, atol=TOLERANCE, linear_solver=lineax.Normal(lineax.Cholesky())
    )

    def fit(y):
        return optimistix.least_squares(
            lambda p, y: model(p, x) - y, solver, start, y, max_steps=50, throw=False
        ).value

    return jax.jit(jax.vmap(fit))


def main():
    """Time both on the data of the file."""
    given = np.load(GIVEN)
    y, x = jnp.asarray(given["y"], DTYPE), jnp.asarray(given["x"], DTYPE)
    start = jnp.asarray(given["start"], DTYPE)
    told, parameters = {}, {}
    for name, make in {"jaxopt": jaxopt_lm, "optimistix": optimistix_lm}.items():
        try:
            fit = make(MODELS[KIND], start, x)
            seconds = []
            for _ in range(1 + REPEATS):
                processor, wall = time.process_time(), time.perf_counter()
                parameters[name] = np.asarray(jax.block_until_ready(fit(y)))
                seconds.append((time.process_time() - processor, time.perf_counter() - wall))
        except Exception as error:
            print(f"{name}: {error!r}", file=sys.stderr)
            continue
        told[name] = {
            "processor": min(p for p, _ in seconds[1:]),
            "wall": min(w for _, w in seconds[1:]),
            "first": seconds[0][1],
        }
    np.savez(TAKEN, **parameters)
    print(json.dumps(told))


if __name__ == "__main__":
    main()
