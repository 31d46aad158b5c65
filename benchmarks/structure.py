"""Rooms of the engine (packages, and modules at its top), the levels that their imports need, and how many there are.

python benchmarks/structure.py [CHECKOUT]
"""

import json
import sys
from functools import cache
from pathlib import Path

import grimp


def structure(checkout: Path) -> dict[str, int]:
    """Count rooms, levels (longest chain of imports), pairs of rooms that import, and imports between rooms' files."""
    sys.path.insert(0, str(checkout))
    graph = grimp.build_graph("moeframe", cache_dir=None)
    edges = [
        (importer, imported)
        for importer in graph.modules
        for imported in graph.find_modules_directly_imported_by(importer)
    ]
    pairs = {(_room(a), _room(b)) for a, b in edges if _room(a) != _room(b)}
    rooms = {_room(module) for module in graph.modules} - {"moeframe"}

    @cache
    def level(room: str) -> int:
        return 1 + max((level(b) for a, b in pairs if a == room), default=0)

    return {
        "rooms": len(rooms),
        "levels": max(level(room) for room in rooms),
        "pairs of rooms with an import": len(pairs),
        "imports between files of different rooms": sum(_room(a) != _room(b) for a, b in edges),
        "files": len(graph.modules),
        "longest file, lines": max(
            len(path.read_text().splitlines()) for path in (checkout / "moeframe").rglob("*.py")
        ),
    }


def _room(module: str) -> str:
    parts = module.split(".")
    return parts[1] if len(parts) > 1 else parts[0]


if __name__ == "__main__":
    print(json.dumps(structure(Path(sys.argv[1] if len(sys.argv) > 1 else ".").resolve()), indent=1))
