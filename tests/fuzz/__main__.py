"""The long run: `python -m tests.fuzz 10000`, each kind by its share; a failing input is kept where it is said."""

import random
import shutil
import sys
from pathlib import Path

from tests.fuzz.kinds import KINDS, examine

KEPT = Path("data/fuzz")


def main(inputs: int) -> int:
    number, failed = random.SystemRandom().randrange(2**32), 0
    print(f"{inputs:,} inputs, seed {number}")
    for name, kind in KINDS.items():
        kept = KEPT / name.replace(" ", "_")

        def keep(folder: Path, kept: Path = kept) -> None:
            shutil.copytree(folder, kept, dirs_exist_ok=True)

        try:
            tally = examine(name, round(inputs * kind.share), seed_number=number, keep=keep)
            print(f"{name}: {tally.inputs:,} inputs, {dict(tally.became)}", flush=True)
        except Exception as error:
            failed += 1
            print(f"{name}: FAILED {type(error).__name__}: {error!s:.500} (input in {kept})", flush=True)
    return failed


if __name__ == "__main__":
    sys.exit(main(int(sys.argv[1])) > 0)
