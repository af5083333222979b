"""What a workdir holds: the only bridge between training and analysis.

config.json            every setting, resolved
environment.json       versions, devices, commit, data fingerprint
runs.json, frames.npy  what each run is; its frame, (R, D, C) float32
labels.npz             of both splits
metrics.csv            step, epoch, run, split, metric, value
arrays/<step>.npz      pairwise margins (R, C, C) and predictions (R, N) of one evaluation
checkpoints/<step>/    Orbax checkpoints of all runs, with digests
"""
