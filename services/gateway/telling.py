"""The gateway's metrics (interfaces.md, Metrics)."""

from libs.runtime import telemetry

_EDGES = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 0.75, 1.0, 1.25, 1.5, 1.65, 2.0, 3.0)

TURN_DURATION = telemetry.histogram(
    "turn_duration_seconds", "From a turn's message to its committed reply.", _EDGES, ("kind", "outcome")
)
TURN_OVERHEAD = telemetry.histogram(
    "turn_overhead_seconds", "A turn's duration less the slower of its model calls.", _EDGES
)
TURN_STAGE = telemetry.histogram("turn_stage_seconds", "What one stage of a turn took.", _EDGES, ("stage",))
TURNS = telemetry.counter(
    "turns_total", "Turns that came to an end here, by their worst degradation.", ("kind", "outcome", "degraded")
)
TURNS_RECOVERED = telemetry.counter("turns_recovered_total", "Turns that another owner had left behind.", ("how",))
RATE_LIMITED = telemetry.counter("rate_limited_total", "Messages refused for their pace.", ("rule",))
SWEPT = telemetry.gauge(
    "sweep_last_success_timestamp_seconds", "When a round of the sweep was last held up by nothing, in Unix time."
)
