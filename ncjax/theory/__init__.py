"""The paper's mathematics as pure functions of arrays, for one run and for features from anywhere.

The final small linear algebra runs in NumPy float64 on the host; whatever touches all samples is jittable.
"""
