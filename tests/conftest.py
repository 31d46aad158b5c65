"""Shape checks at run time in every test: jaxtyping annotations are enforced by beartype."""

from jaxtyping import install_import_hook

install_import_hook(["moeframe", "moeframe_builtin"], "beartype.beartype")

import pytest  # noqa: E402
import torch  # noqa: E402

torch.set_num_threads(1)


@pytest.fixture(scope="session")
def registry():
    """Everything that is installed."""
    from moeframe.registry import Registry

    return Registry.installed()
