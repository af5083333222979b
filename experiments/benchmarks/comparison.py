"""One interleaved comparison of the variants of a setting: rows of rates, ratios, shares of the limits."""

from collections.abc import Callable

import jax
import numpy as np

from experiments.benchmarks import parity, variants
from experiments.benchmarks.cases import Setting, use_precision
from experiments.benchmarks.limits import Limits, limits
from experiments.benchmarks.timing import device_kind, repeated, seconds

DEVICE_OF_CPU = "cpu"


def compare(
    setting: Setting,
    conv_forms: list[str],
    runs_per_step: list[str],
    skip: tuple[str, ...] = (),
    repeats: int = 5,
    checked: bool = True,
) -> list[dict]:
    """One row per variant; a variant that cannot be built or run leaves a row that says why.

    Raises:
      SystemExit: when PyTorch and ncjax do not train the same network (`checked`).
    """
    use_precision(setting.dtype)
    builders = variants.make_builders(setting, conv_forms, runs_per_step, skip)
    checked = checked and variants.TORCH in builders
    difference = parity.check(setting.case.model, setting.case.image_shape) if checked else None
    shared = _shared(setting) | {"repeats": repeats, "parity_difference": difference}
    built, first, errors = start(builders)
    found = repeated({name: variant.epoch for name, variant in built.items()}, repeats)
    rates = {name: setting.work / np.array(values) for name, values in found.items()}
    allowed = limits(setting)
    numbers = {name: {"error": error} for name, error in errors.items()}
    for name, variant in built.items():
        compiled = _compile_seconds(name, variant, first[name], found[name])
        numbers[name] = {"compile_seconds": compiled, "planned_bytes": variant.planned_bytes}
        numbers[name] |= _rates(name, rates) | _shares(float(np.median(rates[name])), allowed)
    named = variants.strategies(setting.runs, conv_forms, runs_per_step)
    return [shared | {"variant": name, **_strategy(named.get(name)), **numbers[name]} for name in builders]


def _shared(setting: Setting) -> dict:
    """What all rows of a setting say."""
    return {
        "device_kind": device_kind(),
        "case": setting.name,
        "model": setting.case.model,
        "dtype": setting.dtype,
        "runs": setting.runs,
        "batch_size": setting.case.batch_size,
        "steps": setting.steps,
    }


def start(builders: dict[str, Callable]) -> tuple[dict, dict[str, float], dict[str, str]]:
    """Build and call every variant once: (those that work, seconds of their first call, errors of the others)."""
    built, first, errors = {}, {}, {}
    for name, build in builders.items():
        try:
            variant = build()
            first[name] = seconds(variant.epoch)
            built[name] = variant
        except Exception as error:  # out of memory has many types; the other variants go on
            errors[name] = first_line(error)
    return built, first, errors


def first_line(error: Exception) -> str:
    """Type and first line of what an error says."""
    said = str(error).strip().splitlines()
    return f"{type(error).__name__}: {said[0][:300]}" if said else type(error).__name__


def _strategy(found: tuple[int, str, list[str]] | None) -> dict:
    if found is None:
        return {}
    size, form, words = found
    return {
        "runs_per_step": size,
        "conv_form": form,
        "strategies": [variants.ncjax_name(word, form) for word in words],
    }


def _rates(name: str, rates: dict[str, np.ndarray]) -> dict:
    """Run-images per second; ratios within a repeat, where the machine's mood is the same for all variants."""
    own = rates[name]
    row = {"rate": float(np.median(own)), "rate_min": float(own.min()), "rate_max": float(own.max())}
    for key, base in (("x_torch", variants.TORCH), ("x_naive", variants.NAIVE)):
        if base not in rates:
            row |= {key: None}
            continue
        ratios = own / rates[base]
        row |= {key: float(np.median(ratios)), f"{key}_min": float(ratios.min()), f"{key}_max": float(ratios.max())}
    return row


def _compile_seconds(name: str, variant: variants.Variant, first: float, later: list[float]) -> float | None:
    """Of jax ahead of time; of `torch.compile` what the first call took longer; PyTorch eager has none."""
    if variant.compile_seconds is not None:
        return variant.compile_seconds
    eager = name == variants.TORCH and variants.torch_device() == DEVICE_OF_CPU
    return None if eager else first - float(np.median(later))


def _shares(rate: float, allowed: Limits) -> dict:
    arithmetic, traffic = allowed.shares(rate)
    on_cpu = jax.default_backend() == DEVICE_OF_CPU
    return {
        "share_of_arithmetic": arithmetic,
        "share_of_bandwidth": None if on_cpu else traffic,  # see limits.py
        "limits": allowed._asdict(),
    }
