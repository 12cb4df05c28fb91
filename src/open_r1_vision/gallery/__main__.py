# SPDX-License-Identifier: Apache-2.0
"""Write a run's rollouts and training curves as one HTML file that needs no server and no network.

    python -m open_r1_vision.gallery runs/starter/visionary_r1
    python -m open_r1_vision.gallery RUN --output look.html --every 10 --max_rollouts 500

It holds texts and images of the data: give it to those who may see them.
"""

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from open_r1_vision.gallery.page import write_gallery


def main(argv: Sequence[str] | None = None) -> None:
    """Run the command line."""
    parser = argparse.ArgumentParser(
        prog="python -m open_r1_vision.gallery",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("run", type=Path, help="output folder of a run, finished or not")
    parser.add_argument("--output", type=Path, help="file to write (default RUN/gallery.html)")
    parser.add_argument(
        "--max_rollouts",
        type=int,
        default=2000,
        help="most completions, in whole groups from all over the run (2000)",
    )
    parser.add_argument("--every", type=int, default=1, help="only every Nth logged step (1)")
    parser.add_argument("--image_size", type=int, default=320, help="longest side of an image in pixels (320)")
    parser.add_argument(
        "--max_text", type=int, default=20_000, help="longest text in characters; the middle of others is cut (20000)"
    )
    args = parser.parse_args(argv)
    try:
        gallery = write_gallery(
            args.run,
            args.output,
            max_rollouts=args.max_rollouts,
            every=args.every,
            image_size=args.image_size,
            max_text=args.max_text,
        )
    except (ValueError, OSError) as error:
        sys.stderr.write(f"error: {error}\n")
        raise SystemExit(2) from error
    sys.stdout.write("".join(f"note     {note}\n" for note in gallery.notes))
    sys.stdout.write(f"rollouts {gallery.num_rollouts} in {gallery.num_groups} groups of {gallery.num_steps} steps\n")
    sys.stdout.write(f"images   {gallery.num_images}\n")
    sys.stdout.write(f"curves   {gallery.num_curves}\n")
    sys.stdout.write(f"gallery  {gallery.path} ({gallery.num_bytes / 1e6:.1f} MB)\n")


if __name__ == "__main__":
    main()
