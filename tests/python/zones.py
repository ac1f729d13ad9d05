"""Compares instants with Python's zoneinfo and the time rules of PyPI's tzdata, never the system's.

    python3 zones.py FILE

Each line of FILE is a zone, a wall time and the seconds since 1970 that were made of it, with tabs between them. Prints
every difference and exits with 1 if there is one.
"""

import datetime
import sys
import zoneinfo


def main(file):
    zoneinfo.reset_tzpath([])
    found = total = 0
    with open(file, encoding="utf-8") as lines:
        for line in lines:
            zone, wall, seconds = line.rstrip("\n").split("\t")
            # fold=0: the first of two, and the rules from before a gap.
            local = datetime.datetime.fromisoformat(wall).replace(tzinfo=zoneinfo.ZoneInfo(zone))
            total += 1
            if local.timestamp() != int(seconds):
                found += 1
                print(f"{wall} {zone}: {int(local.timestamp())}, not {seconds}")
    print(f"{total} wall times, {found} differences")
    return 1 if found or not total else 0


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
