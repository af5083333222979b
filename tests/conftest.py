"""Every test runs on two CPU devices, whatever the machine has."""

import os

os.environ.setdefault("JAX_PLATFORMS", "cpu")  # before jax is imported

import jax
from hypothesis import settings

jax.config.update("jax_num_cpu_devices", 2)

settings.register_profile("ncjax", deadline=None, derandomize=True, max_examples=15)
settings.load_profile("ncjax")
