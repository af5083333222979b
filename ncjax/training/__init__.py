"""Training many runs at once: one run is written as pure functions, `parallel` adds the run axis."""
