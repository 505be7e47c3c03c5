"""Examples that run: `python -m examples.flights` is the main job, each of the others shows one idea."""
