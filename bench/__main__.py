"""`python -m bench [--quick] [NAME …]`: measure, and print each figure beside its peer."""

import argparse
import importlib
import sys

from rich.console import Console

from bench.measure import FULL, QUICK, Comparison, Figure, Missing, line, table

FIGURES = (
    "appends",
    "tree",
    "pgbench",
    "commands",
    "projection",
    "rebuild",
    "meanwhile",
    "query",
    "create_project",
    "start",
    "proxy",
    "memory",
    "verify",
    "export",
)


def main() -> int:
    """Run what is asked for; 1 if a figure with a target does not reach it, or was not measured."""
    parser = argparse.ArgumentParser(prog="python -m bench", description="Each figure beside its peer, in one run.")
    parser.add_argument("figures", nargs="*", metavar="NAME", help=f"of {', '.join(FIGURES)}; none: all of them")
    parser.add_argument("--quick", action="store_true", help="fewer and shorter rounds")
    asked = parser.parse_args()
    if unknown := set(asked.figures) - set(FIGURES):
        parser.error(f"there is no figure {', '.join(sorted(unknown))}; there are {', '.join(FIGURES)}")
    effort = QUICK if asked.quick else FULL
    console, done, missing = Console(), list[Comparison](), list[Missing]()
    console.width = max(console.width, 150)
    try:
        for name in asked.figures or FIGURES:
            figure: Figure = importlib.import_module(f"bench.{name}").measure
            with console.status(f"{name} …"):
                try:
                    for one in figure(effort):
                        done.append(one)
                        console.print(line(one), highlight=False, markup=False)
                except Missing as error:
                    missing.append(error)
    finally:
        console.print(table(done, effort.rounds))
        for error in missing:
            console.print(f"Not measured: {error}", highlight=False, markup=False)
    return 0 if all(one.reached for one in done) and not missing else 1


if __name__ == "__main__":
    sys.exit(main())
