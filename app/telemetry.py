"""What operators see: structured log lines and metrics. Never to be confused with the audit log."""

import logging
import sys
from typing import Literal

import structlog
from msgspec import Struct
from prometheus_client import CollectorRegistry, Counter, Gauge, generate_latest

REGISTRY = CollectorRegistry()
HEAD = Gauge("sophon_log_head", "Position of the newest entry", registry=REGISTRY)
APPLIED = Gauge("sophon_read_models_position", "Position that the read models have applied", registry=REGISTRY)
SIGNED = Gauge("sophon_log_signed_size", "Entries that the newest checkpoint signs", registry=REGISTRY)
CHECKPOINT_AGE = Gauge("sophon_log_checkpoint_age_seconds", "Time since something was signed", registry=REGISTRY)
SIGNER_UP = Gauge("sophon_log_signer_up", "Whether the signer goes on", registry=REGISTRY)
PROJECTOR_UP = Gauge("sophon_projector_up", "Whether the projector goes on", registry=REGISTRY)
SUPERVISOR_UP = Gauge("sophon_supervisor_up", "Whether the runtime's supervisor goes on", registry=REGISTRY)
WRITABLE = Gauge("sophon_log_writable", "Whether the log took what it was last given", registry=REGISTRY)
UNRECORDED = Counter("sophon_accesses_unrecorded", "Accesses that the log could not take", registry=REGISTRY)
RUNS = Gauge("sophon_runs", "Notebook runs by status", ["status"], registry=REGISTRY)


class Fault(Struct, frozen=True):
    """What is not as it should be: which part, as anybody may know, and a sentence for those who can mend it.

    In the sentence there may be what a program of somebody else's said, addresses within the house, and positions.
    """

    part: str
    says: str


def set_up_logging(style: Literal["auto", "console", "json"]) -> None:
    """Write log lines to standard error: for people at a terminal, as JSON elsewhere, unless told which."""
    readable = style == "console" or (style == "auto" and sys.stderr.isatty())
    # Plain, since rich's tracebacks show the values of variables: a password, among others.
    console = structlog.dev.ConsoleRenderer(exception_formatter=structlog.dev.plain_traceback)
    renderer = console if readable else structlog.processors.JSONRenderer()
    structlog.configure(
        processors=[
            structlog.contextvars.merge_contextvars,
            structlog.processors.add_log_level,
            structlog.processors.TimeStamper(fmt="iso", utc=True),
            structlog.processors.format_exc_info if not readable else _same,
            renderer,
        ],
        wrapper_class=structlog.make_filtering_bound_logger(logging.INFO),
        logger_factory=structlog.PrintLoggerFactory(sys.stderr),
        cache_logger_on_first_use=True,
    )
    logging.basicConfig(level=logging.WARNING, format="%(levelname)s %(name)s %(message)s")
    logging.getLogger("psycopg.pool").setLevel(logging.ERROR)


def exposition() -> bytes:
    """Give all metrics in Prometheus' text format."""
    return generate_latest(REGISTRY)


def _same(_: object, __: str, event: structlog.typing.EventDict) -> structlog.typing.EventDict:
    return event
