"""One run of a study, in a process of its own: python -m moeframe.study_task SPEC SEED OUT PHASE_ONE [WEIGHTS_OF]."""

import json
import sys
import traceback
from collections.abc import Sequence
from pathlib import Path

from moeframe.errors import MoeframeError
from moeframe.runs import Borrowed, run
from moeframe.storage import write_file
from moeframe.study import FAILURE


def main(arguments: Sequence[str]) -> int:
    """Run it; a failure is left beside the run's folder with its cause. Returns the exit status."""
    spec, seed, out, phase_one, *weights_of = arguments
    folder = Path(out)
    failure = folder.parent / f"{seed}.{FAILURE}"
    failure.unlink(missing_ok=True)
    borrowed = Borrowed(Path(phase_one), Path(weights_of[0]) if weights_of else None)
    try:
        run(spec, overrides=[f"seeds=[{seed}]"], out=folder, borrowed=borrowed)
    except MoeframeError as error:
        cause = str(error)
    except Exception as error:  # whatever it was, the table must say so
        traceback.print_exc()
        cause = f"{type(error).__name__}: {error}"
    else:
        return 0
    print(cause, file=sys.stderr)  # noqa: T201  # into the run's log
    write_file(failure, (json.dumps({"cause": cause}, indent=1) + "\n").encode())
    return 1


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
