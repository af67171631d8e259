"""What can be asked over HTTP: path, handler, the structs of question and answer."""

from alerting.life.load import Load
from tocsin import verbs
from tocsin.api import models
from tocsin.api.openapi import Operation

OPERATIONS = (
    Operation("/health", "get", "health", "Whether all is well", models.Health, open=True),
    Operation("/ready", "get", "ready", "Whether the node receives", models.Health, open=True),
    Operation("/metrics", "get", "metrics", "Metrics of node and desk", "text/plain"),
    Operation("/api/v1/status", "get", "status", "Node and desk at a glance", models.StatusAnswer),
    Operation(
        "/api/v1/alarms", "get", "alarms", "Alarms as they stand", models.AlarmsAnswer,
        models.AlarmsQuery,
    ),
    Operation("/api/v1/alarms/{id}", "get", "alarm", "One alarm's life", models.AlarmAnswer),
    Operation(
        "/api/v1/alarms/{id}/picture.svg", "get", "alarm_picture",
        "An alarm's series with its band", "image/svg+xml",
    ),
    Operation(
        "/api/v1/incidents", "get", "incidents", "Incidents from the history",
        models.IncidentsAnswer, models.SpanQuery,
    ),
    Operation(
        "/api/v1/incidents/now", "get", "incidents_now", "Incidents as the node has them now",
        verbs.IncidentsAnswer, models.AlarmsQuery,
    ),
    Operation(
        "/api/v1/incidents/{id}/picture.svg", "get", "incident_picture",
        "The series of an incident's first alarm that has one", "image/svg+xml",
    ),
    Operation(
        "/api/v1/digest", "get", "digest", "Findings over the alert budget", models.DigestAnswer,
        models.SpanQuery,
    ),
    Operation(
        "/api/v1/series", "get", "series", "Series from the history", models.SeriesAnswer,
        models.SeriesQuery,
    ),
    Operation(
        "/api/v1/query", "get", "query", "Read-only SQL", "application/json", models.SqlQuery
    ),
    Operation(
        "/api/v1/query", "post", "query_body", "Read-only SQL", "application/json", models.SqlQuery
    ),
    Operation(
        "/api/v1/actions", "post", "actions", "Acknowledge, shelve, silence, merge, ...",
        verbs.OperateAnswer, models.ActionBody,
    ),
    Operation(
        "/api/v1/windows", "get", "windows", "Planned works, silences and shelved alarms",
        verbs.WindowsAnswer,
    ),
    Operation(
        "/api/v1/predictions", "get", "predictions", "Predictions, what became of them, and the "
        "record of each limit", verbs.PredictionsAnswer,
    ),
    Operation(
        "/api/v1/series/baselines", "get", "baselines", "How far baselines have come, youngest first",
        verbs.BaselinesAnswer, models.BaselinesQuery,
    ),
    Operation(
        "/api/v1/triage", "get", "triage", "Verdicts of operators, what was learned from them, "
        "and where scores drifted", verbs.FeedbackAnswer,
    ),
    Operation(
        "/api/v1/probation", "get", "probation", "Which detectors may alert yet, what the others "
        "would have sent", verbs.ProbationAnswer,
    ),
    Operation(
        "/api/v1/load", "get", "load", "Alarm load as ISA-18.2 and EEMUA 191 have it", Load,
        models.LoadQuery,
    ),
    Operation("/api/v1/feed", "get", "feed", "Alerts as they come", "text/event-stream"),
    Operation(
        "/api/v1/openapi.json", "get", "openapi", "This document", "application/json", open=True
    ),
)  # fmt: skip
