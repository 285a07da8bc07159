"""Nearest-neighbour libraries and PyTorch on the same keys and questions as Attic's index.

`python -m peers.measure SET --out FILE.json --heads 0,1 --threads 1,2` measures all of them.
"""
