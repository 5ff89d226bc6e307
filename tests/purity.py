"""An import-linter contract for code that computes: it may reach nothing but what is listed, whatever gets installed.

The linter's own contracts forbid what they name; a dependency that nobody has thought of yet would pass them.
"""

import sys
from typing import cast

import grimp
from importlinter import Contract, ContractCheck, fields, output
from importlinter.domain.helpers import module_expressions_to_modules
from importlinter.domain.imports import ModuleExpression


class PureContract(Contract):
    """`modules`, and what they import of their own package, import the standard library and `allowed`, nothing else.

    An own package is a service (`services.session`) or a library (`libs.runtime`).
    """

    type_name = "pure"

    modules = fields.SetField(subfield=fields.ModuleExpressionField())
    allowed = fields.SetField(subfield=fields.ModuleExpressionField())

    def check(self, graph: grimp.ImportGraph, verbose: bool) -> ContractCheck:
        sources, allowed = _matching(graph, self.modules), _matching(graph, self.allowed)
        illegal = []
        for source in sorted(sources):
            pending, seen = [source], {source}
            while pending:
                importer = pending.pop()
                for imported in sorted(graph.find_modules_directly_imported_by(importer) - allowed - seen):
                    if _own_package(imported) == _own_package(source):
                        seen.add(imported)
                        pending.append(imported)
                    elif imported not in sys.stdlib_module_names:
                        illegal.append((source, importer, imported))
        return ContractCheck(kept=not illegal, metadata={"illegal": illegal})

    def render_broken_contract(self, check: ContractCheck) -> None:
        for source, importer, imported in check.metadata["illegal"]:
            path = importer if importer == source else f"{source} -> ... -> {importer}"
            output.print_error(f"{path} -> {imported}", bold=False)


def _matching(graph: grimp.ImportGraph, field: fields.SetField) -> set[str]:
    # On an instance the linter puts the field's value where the class has its declaration.
    expressions = cast(set[ModuleExpression], field)
    return {module.name for module in module_expressions_to_modules(graph, expressions, raise_if_unmatched=True)}


def _own_package(module: str) -> str:
    return ".".join(module.split(".")[:2]) if "." in module else ""
