"""LeRobot datasets: finding them, and their files. v2.1 and v3.0 are read, v2.1 is written."""
