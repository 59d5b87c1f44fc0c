"""The embedded stack-cube environment on plain MuJoCo."""
