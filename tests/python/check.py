"""Reads .ics files with two independent parsers (PyPI: icalendar, vobject) and compares what they understood, with each
other and with what was meant.

    python3 check.py expected.json FILE.ics...

expected.json maps each file's name to {"method", "uid", "sequence", "start", "end" (UTC, ISO 8601 with Z), "summary",
"description", "location" (or null), "status", "organizer" ([name, URI] or null), "attendees" ([[name, URI], ...]),
"properties" (the names of the event's own, sorted)}.
Prints every difference and exits with 1 if there is one.
"""

import datetime
import json
import pathlib
import sys

import icalendar
import vobject


def instant(value):
    assert isinstance(value, datetime.datetime) and value.tzinfo is not None, f"{value!r} is a floating time"
    return value.astimezone(datetime.timezone.utc).strftime("%Y-%m-%dT%H:%M:%SZ")


def only(items, what):
    assert len(items) == 1, f"{len(items)} {what} instead of one"
    return items[0]


def by_icalendar(data):
    calendar = only(icalendar.Calendar.from_ical(data, multiple=True), "calendars")
    event = only(calendar.subcomponents, "components")
    assert event.name == "VEVENT", event.name
    assert not calendar.errors and not event.errors, calendar.errors + event.errors
    text = lambda name: None if event.get(name) is None else str(event[name])
    person = lambda value: [str(value.params["CN"]), str(value)]
    attendees = event.get("ATTENDEE")
    return {
        "method": str(calendar["METHOD"]),
        "uid": text("UID"),
        "sequence": int(event["SEQUENCE"]),
        "start": instant(event.decoded("DTSTART")),
        "end": instant(event.decoded("DTEND")),
        "summary": text("SUMMARY"),
        "description": text("DESCRIPTION"),
        "location": text("LOCATION"),
        "status": text("STATUS"),
        "organizer": person(event["ORGANIZER"]) if "ORGANIZER" in event else None,
        "attendees": [person(value) for value in (attendees if isinstance(attendees, list) else [attendees])],
        "properties": sorted(name for name, _ in event.property_items(recursive=False) if name not in ("BEGIN", "END")),
    }


def by_vobject(data):
    calendar = only(list(vobject.readComponents(data)), "calendars")
    event = only(list(calendar.components()), "components")
    assert event.name == "VEVENT", event.name
    text = lambda name: event.getChildValue(name)
    person = lambda line: [only(line.params["CN"], "names"), line.value]
    return {
        "method": calendar.method.value,
        "uid": text("uid"),
        "sequence": int(text("sequence")),
        "start": instant(text("dtstart")),
        "end": instant(text("dtend")),
        "summary": text("summary"),
        "description": text("description"),
        "location": text("location"),
        "status": text("status"),
        "organizer": person(event.organizer) if "organizer" in event.contents else None,
        "attendees": [person(line) for line in event.contents.get("attendee", [])],
        "properties": sorted(line.name for line in event.lines()),
    }


def differences(name, data, expected):
    for parser in (by_icalendar, by_vobject):
        try:
            understood = parser(data)
        except Exception as error:  # any failure of a parser is a finding
            yield f"{name}: {parser.__name__}: {type(error).__name__}: {error}"
            continue
        for key in sorted(expected.keys() | understood.keys()):
            if understood.get(key) != expected.get(key):
                yield f"{name}: {parser.__name__}: {key} is {understood.get(key)!r}, meant {expected.get(key)!r}"


def main(expected, *files):
    expected = json.loads(pathlib.Path(expected).read_text("utf-8"))
    files = [pathlib.Path(file) for file in files]
    found = [f"{name}: not given" for name in expected.keys() - {file.name for file in files}]
    for file in files:
        found += differences(file.name, file.read_bytes().decode("utf-8"), expected[file.name])
    print("\n".join(found) if found else f"{len(files)} files: both parsers understood what was meant")
    return 1 if found else 0


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
