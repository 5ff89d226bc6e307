"""Which plans can be started, and which bank a running interview measures with.

A new interview takes the newest bank of its role; one that runs stays with the version it pinned, so older versions
remain in the catalogue for as long as interviews may run on them.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from types import MappingProxyType

from libs.runtime.errors import FieldViolation, InvalidField
from services.assessment.bank import Bank
from services.assessment.domain import BankVersion, Plan, PlanName

DEFAULT_PLAN = PlanName("backend-engineer")
"""What is started where a client names no plan."""


@dataclass(frozen=True, slots=True, eq=False)
class Catalogue:
    """All banks by version, and the plans on offer, each in the newest bank of its role."""

    banks: Mapping[BankVersion, Bank]
    offers: Mapping[PlanName, Bank]
    default_plan: PlanName

    @classmethod
    def of(cls, banks: Iterable[Bank], default_plan: PlanName = DEFAULT_PLAN) -> "Catalogue":
        """Raises ValueError where two banks have one version, two roles name a plan alike, or the default is
        missing."""
        by_version: dict[BankVersion, Bank] = {}
        newest: dict[str, Bank] = {}
        for bank in sorted(banks, key=lambda bank: (bank.role, bank.number)):
            if bank.version in by_version:
                raise ValueError(f"two banks have the version {bank.version}")
            by_version[bank.version] = newest[bank.role] = bank
        offers: dict[PlanName, Bank] = {}
        for bank in newest.values():
            for name in bank.plans:
                if name in offers:
                    raise ValueError(f"{offers[name].version} and {bank.version} both have a plan {name}")
                offers[name] = bank
        if default_plan not in offers:
            raise ValueError(f"no bank has the default plan {default_plan}")
        return cls(MappingProxyType(by_version), MappingProxyType(offers), default_plan)

    def offered(self, plan: str) -> tuple[Bank, Plan]:
        """The plan of that name, or the default for an empty one. Raises InvalidField, which lists the names."""
        name = PlanName(plan) if plan else self.default_plan
        bank = self.offers.get(name)
        if bank is None:
            raise InvalidField([FieldViolation("plan", f"must be one of {', '.join(sorted(self.offers))}")])
        return bank, bank.plans[name]

    def pinned(self, version: str, plan: str) -> tuple[Bank, Plan]:
        """The plan of that name in the bank that an interview has pinned. Raises InvalidField."""
        bank = self.bank(version)
        found = bank.plans.get(PlanName(plan))
        if found is None:
            raise InvalidField([FieldViolation("plan", f"is not a plan of {bank.version}")])
        return bank, found

    def bank(self, version: str) -> Bank:
        """The bank of that version. Raises InvalidField."""
        bank = self.banks.get(BankVersion(version))
        if bank is None:
            raise InvalidField([FieldViolation("bank_version", "is not in the catalogue")])
        return bank
