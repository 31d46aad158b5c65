"""One network saved in two families or parametrisations merges to itself under every installed gate."""

import sys
from pathlib import Path

import pytest

BENCHMARKS = Path(__file__).parent.parent.parent / "benchmarks"
sys.path.insert(0, str(BENCHMARKS))
from merge_exactness import families  # noqa: E402

sys.path.remove(str(BENCHMARKS))


@pytest.mark.slow
def test_one_network_saved_twice_merges_to_itself_under_every_gate(registry):
    found = families()
    assert set(registry.names("gates")) <= set.intersection(*(set(entry) for entry in found["pairs"].values()))
    assert {"diffusers", "EDM", "VDM", "unet"} == {name.split()[0] for name in found["pairs"]}
    assert 0 < found["worst"] <= 1e-5
