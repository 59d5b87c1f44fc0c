"""HDF5 demonstrations of IsaacLab (Mimic, record_demos) and robomimic, made into LeRobot datasets.

Both have ``/data/demo_N`` with ``actions`` and a group ``obs`` of one array per key. Sources:
``isaaclab.utils.datasets.HDF5DatasetFileHandler`` and ``RecorderManager`` of IsaacLab, and "Dataset Structure" of
robomimic's documentation. The files are a stranger's: `file` opens them, and what it gives lies in the file itself.
"""
