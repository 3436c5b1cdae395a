"""Run the real command on a clip with several models and write down what it reports.

    python bench/commands.py CLIP --out RESULTS.json 7b=FOLDER "3b=FOLDER" "3b 4bit=FOLDER --quantize 4bit"

Each row is a fresh process: `longvu ask CLIP QUESTION --model FOLDER --json …`. The host's peak memory is that of the
process; everything else is what the JSON says.
"""

from __future__ import annotations

import argparse
import json
import shlex
import subprocess
import sys
import time

QUESTION = "What happens in this video, and where is the cup?"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("clip")
    parser.add_argument("rows", nargs="+", metavar="LABEL=FOLDER [FLAGS]")
    parser.add_argument("--out", required=True)
    arguments = parser.parse_args()
    results = []
    for row in arguments.rows:
        label, _, rest = row.partition("=")
        command = [sys.executable, "-c", "from longvu_cli.cli.app import main; main()", "ask", arguments.clip, QUESTION]
        begin = time.perf_counter()
        done = subprocess.run(
            [*command, "--json", "--model", *shlex.split(rest)], capture_output=True, text=True, check=False
        )
        wall = time.perf_counter() - begin
        record = json.loads(done.stdout) if done.stdout else {}
        if "error" in record or done.returncode:
            results.append({"label": label, "exit": done.returncode, "error": record or done.stderr[-2000:]})
        else:
            compression = record["compression"]
            compression.pop("per_frame")
            results.append(
                {
                    "label": label,
                    "exit": done.returncode,
                    "wall_s": wall,
                    "video": {key: record["video"][key] for key in ("width", "height", "duration_s", "fps", "codec")},
                    "model": record["model"],
                    "compression": compression,
                    "timing_s": record["timing_s"],
                    "memory": record["memory"],
                    "new_tokens": len(record["token_ids"]),
                    "cache": record["cache"],
                }
            )
        print(json.dumps(results[-1]), flush=True)
        with open(arguments.out, "w") as file:
            json.dump(results, file, indent=1)


if __name__ == "__main__":
    main()
