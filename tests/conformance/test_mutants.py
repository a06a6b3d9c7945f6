"""The suite itself: what keeps the rules passes, and every rule can be broken."""

import importlib
from pathlib import Path

from rejoinder.conformance.suite import RULES
from tests.conformance import bridged
from tests.conformance.judging import KEY, OPEN, OTHER_KEY, Mutants, every, ids, verdicts
from tests.conformance.little_server import Fault, LittleServer

FILES = sorted(Path(__file__).parent.glob("test_about_*.py"))


def mutants() -> Mutants:
    """Those of all files."""
    found: dict[str, Mutants] = {
        file.stem: importlib.import_module(f"tests.conformance.{file.stem}").MUTANTS for file in FILES
    }
    return {f"{file}: {name}": mutant for file, those in found.items() for name, mutant in those.items()}


async def test_without_a_fault_no_rule_is_broken_and_all_apply() -> None:
    little = LittleServer(key=KEY, other_key=OTHER_KEY)
    found = await verdicts(little, key=KEY, other_key=OTHER_KEY)
    assert {verdict.id: verdict.reason for verdict in found if verdict.outcome != "kept"} == {}
    assert ids("kept", found) == {rule.id for rule in OPEN}


async def test_without_a_fault_no_paired_rule_is_broken_and_all_apply() -> None:
    found = await bridged.verdicts()
    assert {verdict.id: verdict.reason for verdict in found if verdict.outcome != "kept"} == {}
    assert ids("kept", found) == {rule.id for rule in RULES} - {rule.id for rule in OPEN}


def test_every_rule_is_broken_by_a_mutant() -> None:
    broken = {rule for _, breaks in mutants().values() for rule in breaks}
    assert {rule.id for rule in RULES} - broken == set(), "a rule that nothing can break says nothing"
    assert broken - {rule.id for rule in RULES} == set(), "a mutant that breaks a rule there is none of"


def test_every_rule_is_broken_alone_by_one_of_them() -> None:
    alone = {rule for _, breaks in mutants().values() if len(breaks) == 1 for rule in breaks}
    assert {rule.id for rule in RULES} - alone == set(), "a rule that only breaks beside another one may be that rule"


SOME: Mutants = dict([(name, one) for name, one in mutants().items() if isinstance(one[0], Fault)][::40])


@every(SOME)
async def test_rules_that_need_not_be_asked_are_not_broken(fault: Fault, breaks: set[str]) -> None:
    little = LittleServer(fault, key=KEY, other_key=OTHER_KEY)
    assert ids("broken", await verdicts(little, key=KEY, other_key=OTHER_KEY)) == breaks
