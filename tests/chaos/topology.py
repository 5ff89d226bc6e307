"""What runs, and over which links it talks: two gateways and one of every other service, a link for each two."""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Replica:
    """One process of a service of `services.cli.environment`."""

    service: str
    number: int = 0

    @property
    def name(self) -> str:
        """`history`, or `gateway-2` where there are several."""
        return f"{self.service}-{self.number}" if self.number else self.service


@dataclass(frozen=True, slots=True)
class Link:
    """The connections that one process opens to another; `callee` is a process, or `postgres`."""

    caller: str
    callee: str

    @property
    def name(self) -> str:
        return f"{self.caller}>{self.callee}"


CONTEXTS = ("history", "session", "llm-gateway", "assessment")
CALLS = {
    "bff": ("gateway",),
    "gateway": CONTEXTS,
    "assessment": ("llm-gateway", "postgres"),
    "history": ("postgres",),
    "session": ("postgres",),
    "llm-gateway": ("postgres",),
}
PROCESSES = (*(Replica(context) for context in CONTEXTS), Replica("gateway", 1), Replica("gateway", 2), Replica("bff"))
POSTGRES = Replica("postgres")
LINKS = [
    Link(caller.name, callee.name)
    for caller in PROCESSES
    for callee in (*PROCESSES, POSTGRES)
    if callee.service in CALLS[caller.service]
]
