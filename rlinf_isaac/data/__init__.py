"""LeRobot datasets: resolve, read (v2.1, v3.0), write (v2.1), norm stats."""
