"""Labelled images from several sources, as uint8 arrays; normalised and augmented later, on the device."""

from ncjax.data.sources import Dataset, load

__all__ = ["Dataset", "load"]
