"""Loading of a text as a spec file."""

import pytest

from moeframe.errors import InputError
from moeframe.spec.loader import load_spec


@pytest.fixture
def load(tmp_path, registry):
    """Load a text as spec.yaml, beside other files."""

    def load_text(text, *overrides, **others):
        for name, content in others.items():
            (tmp_path / f"{name}.yaml").write_text(content)
        path = tmp_path / "spec.yaml"
        path.write_bytes(text if isinstance(text, bytes) else text.encode())
        return load_spec(path, registry, overrides)

    return load_text


@pytest.fixture
def errors(load, tmp_path):
    """The lines of the report on a text, without the folder's name."""

    def report(text, *overrides, **others):
        with pytest.raises(InputError) as caught:
            load(text, *overrides, **others)
        return str(caught.value).replace(f"{tmp_path}/", "").split("\n")

    return report
