"""A finished run that each test may damage."""

import shutil

import pytest
from command_line import call


@pytest.fixture(scope="session")
def original(tmp_path_factory, tiny_text):
    """A folder with a spec and its finished run."""
    folder = tmp_path_factory.mktemp("finished")
    (folder / "tiny.yaml").write_text(tiny_text)
    assert call("run", folder / "tiny.yaml", "--out", folder / "run").exit_code == 0
    return folder


@pytest.fixture
def finished(original, tmp_path):
    """A copy of the finished run that may be spoilt."""
    return shutil.copytree(original / "run", tmp_path / "run")


@pytest.fixture
def unevaluated(finished):
    """The run as if it had been stopped after its last training step."""
    (finished / "seed-0/metrics.json").unlink()
    return finished
