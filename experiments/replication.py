"""The replication report: `python -m experiments.replication` writes docs/replication.md from the recipes' results.

Results of `python -m flowexp.reproduce` below results/ are taken over into docs/results/replication first; those that
lie there already stay. All are judged from their tables, by the rules as they stand. Every claim of every recipe has a
row, with its rule; one whose recipe has no results is open.
"""

from __future__ import annotations

import json
import re
import shutil
import sys
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from experiments.verdict_picture import draw_verdicts
from flowexp.cli.recipes import decide, find_recipes, read_recipe
from flowexp.cli.recipes.claims import UNTESTABLE, state_of
from flowexp.cli.recipes.recipe import read_yaml, shipped, without
from flowexp.records.figures import save_figure
from flowexp.records.files import atomic, fingerprint
from flowexp.records.tables import read_csv

DOCS = Path(__file__).parents[1] / "docs"
PAGE, KEPT = DOCS / "replication.md", DOCS / "results" / "replication"
STRICT = 4.3  # standard errors: 95 % of a t distribution with 2 degrees of freedom, three seeds
BUDGETS = ("paper", "gpu", "cpu")  # the first that there is counts; smoke decides nothing
OPEN = "open"
STATES = {
    "supported": "supported",
    "refuted": "**refuted**",
    "not testable at this scale": "not testable",
    OPEN: "open",
}
PAPERS = {"lcf": "Local Contrastive Flow", "vd": "The Velocity Deficit"}
PICTURE = """![differences found for each claim, in units of what would count](results/replication/{paper}.png)

Each row is a claim that a difference over seeds decided, with 2 standard errors. From 1 on, shaded, a difference
counts; a triangle lies beyond the axis. Hollow points are claims that there is none.

"""
HEAD = """# Replication report: {count}

Made by `python -m experiments.replication`; do not edit. Each claim of the two papers that a run can test has a rule in
the yaml of its recipe, written before the run that it judges: what is compared, in which direction, and beyond how many
standard errors over seeds. A claim ends as *supported*, *refuted* or *not testable at this scale*, and is *open* until
its recipe has been run.

* *Supported*: the difference, averaged over seeds, is above zero by 2 standard errors, and at least as large as what
  counts (a point, 2 %: the rule says). *Refuted*: 2 standard errors exclude that it is that large. A claim that there
  is none ends the other way round.
* *Not testable* are claims that no run of this size can decide, and those that are undecided here: the evidence of
  these "neither shows nor excludes" what counts.
* With three seeds 2 standard errors are 82 % of a t distribution; 95 % are 4.3. {strict}
* A curve that falls from t = 0 on has a dip of 0 in every seed. So a difference of two dips is FM's dip alone where the
  other method has none, and its standard error is FM's.

What is said here is said of the scale in the row, not of the papers' own: no number of either
paper has been reproduced at its size.

Length of training decides some of them: after 3,000 steps the dip of FM's features is less than a point, after 10,000
about one ([how](results/dip/README.md)). Each row says how long its networks were trained, and a verdict on features
holds for this length; of a dip nothing is decided where FM does not show one.

Where a paper prints numbers, its points (squares) stand beside ours as shares of its own baseline: its FID is of other
features, and of other networks.

LCF is *Flow Matching in the Low-Noise Regime*, VD is *The Velocity Deficit*.
"""


@dataclass(frozen=True)
class Result:
    """What a recipe has given.

    Arguments:
        name: of the recipe.
        about: the first sentence of its Python file.
        claims: of its yaml, by name, with `state` and `evidence` where it has been run.
        made: command, scale, minutes, seeds and commit; empty where it has not been run.
        cost: of the yaml, by budget: what it takes from nothing.
        folder: of tables and figures, below docs; None where there are none.
        needs: what its command line has to give, such as pipeline=FOLDER.
    """

    name: str
    about: str
    claims: Mapping[str, Mapping[str, Any]]
    made: Mapping[str, Any]
    cost: Mapping[str, str]
    folder: Path | None
    needs: Sequence[str] = ()


def take_over() -> None:
    """Copies tables, figures and claims of results/ that are of a real budget to docs/results/replication."""
    for name in shipped_recipes():
        made = [
            Path("results", name, budget) for budget in BUDGETS if Path("results", name, budget, "made.json").exists()
        ]
        if not made:
            continue
        kept = KEPT / name
        shutil.rmtree(kept, ignore_errors=True)
        kept.mkdir(parents=True)
        for file in sorted(made[0].iterdir()):
            if file.suffix in (".png", ".md", ".csv") or file.name in ("made.json", "claims.json"):
                shutil.copyfile(file, kept / file.name)
        if (made[0] / "protocol.json").exists():
            _note_protocol(kept / "made.json", made[0] / "protocol.json")


def _note_protocol(made: Path, protocol: Path) -> None:
    """The protocol itself is long; what identifies it stands beside the results."""
    notes = json.loads(made.read_text(encoding="utf-8"))
    atomic.write_json(made, notes | {"protocol": fingerprint.of_values(json.loads(protocol.read_text()))[:8]})


def judge_again(name: str) -> dict[str, dict[str, Any]]:
    """How the claims of a recipe end by its committed tables, in the form of claims.json; none without results."""
    if not (KEPT / name).exists():
        return {}
    recipe = read_recipe(name, [])
    tables = {file.stem: read_csv(file) for file in sorted((KEPT / name).glob("*.csv"))}
    module = recipe.module()
    judgements = module.judge(tables) if hasattr(module, "judge") else {}
    return {claim.name: claim.data() for claim in decide(recipe.claims, judgements)}


def shipped_recipes() -> dict[str, Path]:
    """The recipes of this checkout, by their names."""
    return {name: file for name, file in find_recipes().items() if file.is_relative_to(shipped())}


def results() -> list[Result]:
    """All recipes with claims or results."""
    found = [result_of(name, file) for name, file in shipped_recipes().items()]
    return [result for result in found if result.claims or result.folder]


def result_of(name: str, file: Path) -> Result:
    """A recipe with what docs/results/replication has of it."""
    kept = KEPT / name
    config = read_yaml(file)
    rules = {str(key): dict(claim) for key, claim in config.get("claims", {}).items()}
    ends = _read(kept / "claims.json")
    claims = {key: {**rule, **_end(rule, ends.get(key))} for key, rule in rules.items()}
    docstring = file.with_suffix(".py").read_text(encoding="utf-8").split('"""')[1]
    cost = {str(budget): str(of) for budget, of in config.get("costs", {}).items()}
    made, folder = _read(kept / "made.json"), kept if kept.exists() else None
    return Result(name, docstring.splitlines()[0], claims, made, cost, folder, without(config, []))


def _end(rule: Mapping[str, Any], end: Mapping[str, Any] | None) -> dict[str, Any]:
    if end is not None:
        return {"state": str(end["state"]), "evidence": str(end["evidence"]), "effect": end.get("effect")}
    if rule.get("not_testable"):
        return {"state": "not testable at this scale", "evidence": f"because {rule['not_testable']}"}
    return {"state": OPEN, "evidence": ""}


def _read(file: Path) -> dict[str, Any]:
    return dict(json.loads(file.read_text(encoding="utf-8"))) if file.exists() else {}


def report(found: Iterable[Result]) -> str:
    """The page."""
    found = list(found)
    states = Counter(claim["state"] for result in found for claim in result.claims.values())
    count = ", ".join(f"{states[state]} {state}" for state in STATES if states[state])
    parts = [
        HEAD.format(count=f"{sum(states.values())} claims, {count}", strict=_strictly(found)),
        _refutations(found),
    ]
    for paper, title in PAPERS.items():
        own = of_paper(found, paper)
        parts += [f"\n## {title}\n\n", PICTURE.format(paper=paper), _claims_table(own), *map(_section, own)]
    return "".join(parts)


def _strictly(found: Iterable[Result]) -> str:
    """How many verdicts would be undecided with the standard errors of `STRICT`."""
    claims = [claim for result in found for claim in result.claims.values() if claim.get("effect")]
    decided = [claim["effect"] for claim in claims if claim["state"] in ("supported", "refuted")]
    lost = [effect for effect in decided if not stands(effect["mean"], effect["standard_error"])]
    return f"By that {len(lost)} of the {len(decided)} verdicts that a difference decided would be undecided."


def stands(mean: float, error: float) -> bool:
    """Whether `STRICT` standard errors still show or exclude a difference, in units of what counts."""
    return state_of(mean, error, 1.0, STRICT) != UNTESTABLE


def of_paper(found: Iterable[Result], paper: str) -> list[Result]:
    """The results of a paper's recipes."""
    return [result for result in found if result.name.startswith(f"{paper}/")]


def _refutations(found: Iterable[Result]) -> str:
    """The claims that ended with a no, which are what a reader has to know first."""
    no = [(result, claim) for result in found for claim in result.claims.values() if claim["state"] == "refuted"]
    lines = [f"* {claim['claim']}: {evidence_of(claim)} ([{result.name}](#{_anchor(result)}))" for result, claim in no]
    return "\nRefuted at the scale of these runs:\n\n" + "\n".join(lines) + "\n" if lines else ""


def _claims_table(found: Iterable[Result]) -> str:
    lines = ["| claim | verdict | evidence | trained for | recipe |", "| --- | --- | --- | --- | --- |"]
    for result in found:
        link, length = f"[{result.name}](#{_anchor(result)})", trained_for(result)
        for claim in result.claims.values():
            cells = (claim["claim"], STATES[claim["state"]], evidence_of(claim), length, link)
            lines.append(f"| {' | '.join(str(cell).replace('|', chr(92) + '|') for cell in cells)} |")
    return "\n".join(lines) + "\n"


def evidence_of(claim: Mapping[str, Any]) -> str:
    """What decided a claim, and what other runs say of it."""
    return "; ".join([claim["evidence"], *([f"**beside it**: {claim['beside']}"] if claim.get("beside") else [])])


def trained_for(result: Result) -> str:
    """The lengths of a recipe's trainings, as "10,000 steps"; "" where it trains nothing or has not been run."""
    return next((part for part in result.made.get("scale", "").split("; ") if part.endswith(" steps")), "")


def _anchor(result: Result) -> str:
    return result.name.replace("/", "")


def _section(result: Result) -> str:
    """One recipe: its rules, its table and its pictures."""
    lines = [f"\n### {result.name}\n", result.about, ""]
    if result.made:
        made = result.made
        trained = f" with what was trained before; {made['scale']}; protocol {made.get('protocol')}"
        nothing = f", nothing is trained; protocol {made.get('protocol')}"
        how = f"{trained}{_from_nothing(result)}" if made["scale"] else nothing
        lines += [f"`{made['command']}`: {made['minutes']:g} minutes{how}; commit {made.get('commit')}.", ""]
    else:
        words = " ".join([result.name, *result.needs])
        lines += [f"Not run yet: `python -m flowexp.reproduce {words}`.", ""]
    lines += [f"* {claim['claim']}. Rule: {claim['rule']}" for claim in result.claims.values() if claim.get("rule")]
    if result.folder is not None:
        lines += ["", *_table_and_pictures(result.folder)]
    return "\n".join(lines) + "\n"


def _from_nothing(result: Result) -> str:
    budget = re.search(r"budget=(\w+)", result.made["command"])
    cost = result.cost.get(budget[1]) if budget else None
    return f"; all of it costs {cost}" if cost else ""


def _table_and_pictures(folder: Path) -> list[str]:
    place = folder.relative_to(DOCS).as_posix()
    table = (folder / "table.md").read_text(encoding="utf-8") if (folder / "table.md").exists() else ""
    pictures = [f"![{file.stem}]({place}/{file.name})" for file in sorted(folder.glob("*.png"))]
    return [table, "\n\n".join(pictures)]


def main() -> None:
    if sys.argv[1:]:
        raise SystemExit(f"error: the report takes no arguments, got {' '.join(sys.argv[1:])}")
    take_over()
    for name in shipped_recipes():
        if claims := judge_again(name):
            atomic.write_json(KEPT / name / "claims.json", claims)
    found = results()
    for paper in PAPERS:
        drawn = draw_verdicts([claim for result in of_paper(found, paper) for claim in result.claims.values()])
        save_figure(drawn, KEPT / f"{paper}.png")
    atomic.write_text(PAGE, report(found))
    print(f"wrote {PAGE}")


if __name__ == "__main__":
    main()
