"""Hooks of Schemathesis, for `.ci/schemathesis`: drawn requests mostly name nothing that exists, so ids and zones are
exchanged for real ones, always in the same way. Google is connected, again after a disconnection, and some interviews
are there.

The stateful phase follows the links that Schemathesis infers from ids in answers (schedule → open, change, cancel, join;
list → open, …). It takes scheduling for hopeless, as no answer has people or jobs to schedule with; hence a link of ours
that leads there. A call by which it found an interview is noted in the file `found`, for `.ci/schemathesis` to count."""

import datetime
import json
import os
import urllib.request

import schemathesis
from schemathesis.generation.meta import TestPhase

API, TOKEN = os.environ["API"], os.environ["TOKEN"]
NOW = datetime.datetime.now(datetime.timezone.utc)
REAL = {
    # A candidate of the demo (as an integer and as a string), somebody who has not applied, the caller, nobody.
    "candidate_id": [3, 3, "3", 4, 1, 999],
    "job_id": [1, 1, "1", 2],
    "company_id": [1, 1, None, 2],
    "timezone": ["UTC", "America/New_York", "Asia/Tokyo", "Europe/Dublin", "Mars/Phobos"],
    "date": [NOW.date().isoformat(), "2027-03-14", "2027-11-07", "2040-02-29"],
}


def choice(value, among):
    return among[sum(map(ord, str(value))) % len(among)]


@schemathesis.hook
def map_body(context, body):
    if isinstance(body, dict):
        for key, among in REAL.items():
            # What is drawn to be wrong (another type, no date) stays so.
            if key in body and isinstance(body[key], (int, str)) and body[key] is not True and body[key] is not False:
                body[key] = choice(body[key], [*among, body[key]])
    return body


@schemathesis.hook
def map_path_parameters(context, parameters):
    # Of the interviews 1 to 20 some stay, to be changed and joined.
    cancels = context.operation.method.upper() == "DELETE" or context.operation.path.endswith("/cancel/")
    for key, value in (parameters or {}).items():
        if str(value).isdigit():
            parameters[key] = choice(value, [*(range(11, 21) if cancels else range(1, 11)), value])
    return parameters


@schemathesis.hook
def before_load_schema(context, raw_schema):
    # In time to be joined; by UTC.
    body = {"candidate_id": 3, "job_id": 1, "date": NOW.date().isoformat(), "time": NOW.strftime("%H:%M"), "timezone": "UTC"}
    raw_schema["paths"]["/api/users/profile/"]["get"]["responses"]["200"]["links"] = {
        name: {"operationId": name, "requestBody": body}
        for name in ["post_api_company_google_create_interview", "post_api_company_create_interview"]
    }


@schemathesis.hook
def after_call(context, case, response):
    if case.path.endswith("/disconnect/") and response.status_code == 200:
        connect()
    if case.meta.phase.name == TestPhase.STATEFUL and "{id}" in case.path and response.status_code == 200:
        # The interviews 1 to 20 are made below, those after them by an earlier call of Schemathesis.
        origin = "given" if int(case.path_parameters["id"]) <= 20 else "made"
        with open("found", "a") as found:
            print(case.method, case.path, origin, file=found)


def call(path, body=None):
    body = body and json.dumps(body).encode()
    headers = {"Authorization": f"Bearer {TOKEN}", "Content-Type": "application/json"}
    with urllib.request.urlopen(urllib.request.Request(API + path, body, headers)) as answer:
        return json.load(answer)


def connect():
    consent = call("/api/company/google/auth-url/")["authorization_url"]
    # The simulator's "Allow", from there to the callback, and from there to where a front end would be.
    with urllib.request.urlopen(f"{consent}&_sim_allow=1") as end:
        assert end.url.endswith("google_oauth=success"), end.url


connect()
for number in range(20):
    interview = {"candidate_id": 3, "job_id": 1, "interview_type": ["google_meet", "phone"][number % 2]}
    # In time to be joined; by UTC.
    interview |= {"date": NOW.date().isoformat(), "time": NOW.strftime("%H:%M")}
    call("/api/company/google/create-interview/", interview)
