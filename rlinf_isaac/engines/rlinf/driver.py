"""Documented entry point of `worker.driver`: ``python -m rlinf_isaac.engines.rlinf.driver RUN_DIRECTORY``."""

from rlinf_isaac.engines.rlinf.worker.driver import main

if __name__ == "__main__":
    main()
