"""The page of the claims from the table that the tests write.

    pytest --claims --claims-json=docs/claims.json
    python docs/claims.py

writes claims.md beside this file.
"""

from __future__ import annotations

import json
from collections import Counter
from pathlib import Path
from typing import Any

HERE = Path(__file__).parent

HEAD = """# The claims of the paper, one by one

Made from `claims.json` by `python docs/claims.py`; that file is written by

```bash
pytest --claims --claims-json=docs/claims.json
```

Every claim of the paper's appendices, and of the parts of the main text that they rest on, has a number
here; the tests that decide it are marked with it. `pytest -k "Lemma C.4"` or `pytest -k "Claim 69"` runs
those of one, and `--claims-seed N` runs them on other random numbers. No verdict depends on them:

```bash
for seed in $(seq 10); do pytest --claims --claims-seed $seed; done
```

ends ten times with the verdicts below. Margins at the level of rounding differ from one processor to another.

* **holds**: checked in the way that the column *check* says; *exact* over fractions, integers or to
  rounding, *symbolic* for identities of polynomials, *certified* by interval arithmetic, *bound* for a
  measured quantity against the right side on random and adversarial cases, *statistical* with the
  confidence given.
* **holds with slack**: the bound was shown to be at least so many times what it bounds.
* **false as printed, corrected form holds**: a counterexample to the printed form is part of the test,
  and so is the corrected form, which is the one stated here.
* **rate only**: a constant is not given in the paper, so that only a rate, or an implied constant, can
  be checked.
* **not checkable**: nothing that a computation could decide.

Behind each check stand the largest measured figure, what it has to stay below, and the number of cases.
Every check is also run on broken twins, which it has to reject; they are named in `claims.json`. Beyond
those, `python -m tests.mutate --all` (hours) breaks the constructions and the reference code at every sign,
index, bound, factor and transpose, and lists what no test noticed; mutants that compute the same stand in
`tests/mutate/equivalent.toml`, with the proof.

"""


def row(claim: dict[str, Any]) -> str:
    """One line of the table."""
    erratum = f" (erratum {claim['erratum']})" if claim["erratum"] else ""
    how = claim["check"] if claim["cases"] else ""
    if claim["confidence"]:
        how += f", {100 * claim['confidence']:g}%"
    numbers = ["", "", ""]
    if claim["measured"] is not None and claim["bound"] is not None:
        numbers = [f"{claim['measured']:.3g}", f"{claim['bound']:.3g}", str(claim["cases"])]
    statement = _plain(claim["statement"])
    cells = [str(claim["id"]), claim["paper"], statement, claim["verdict"] + erratum, how, *numbers]
    return "| " + " | ".join(cells) + " |"


def _plain(text: str) -> str:
    """Without what Markdown would read as markup."""
    for sign in "|*_<":
        text = text.replace(sign, f"\\{sign}")
    return text


def table(claims: list[dict[str, Any]]) -> str:
    """All lines."""
    head = (
        "| | in the paper | what is decided | verdict | check | largest | bound | cases |\n"
        + "|---" * 8
        + "|"
    )
    return "\n".join([head, *map(row, claims)])


def errata(claims: list[dict[str, Any]]) -> str:
    """Errata in their order, each with its claims and counterexamples."""
    found: dict[str, list[dict[str, Any]]] = {}
    for claim in claims:
        if claim["erratum"]:
            found.setdefault(claim["erratum"], []).append(claim)
    lines = []
    for name in sorted(found, key=lambda name: (name[0], int(name[1:]))):
        for claim in found[name]:
            failing = _plain(claim["note"]) if claim["verdict"].startswith("false") else "see the statement"
            lines.append(
                f"| {name} | {claim['id']} | {claim['paper']} | {_plain(claim['statement'])} | {failing} |"
            )
    return "| | claim | in the paper | what is right | what fails |\n" + "|---" * 5 + "|\n" + "\n".join(lines)


def page(results: dict[str, list[dict[str, Any]]]) -> str:
    """The whole page."""
    counts = Counter(claim["verdict"] for claim in results["claims"])
    said = ", ".join(f"{count} *{verdict}*" for verdict, count in counts.most_common())
    return (
        HEAD
        + f"The verdicts of the {len(results['claims'])} claims: {said}.\n\n"
        + table(results["claims"])
        + "\n\n## Errata\n\nA: an implementation of what is printed fails. B: a step of a proof, or a bound, "
        "does; the theorem can be repaired.\n\n"
        + errata(results["claims"])
        + "\n\n## Improved theorems\n\nStatements and proofs are in [improved.md](improved.md).\n\n"
        + table(results["improved"])
        + "\n"
    )


def main() -> None:
    """Write the page."""
    (HERE / "claims.md").write_text(page(json.loads((HERE / "claims.json").read_text())))


if __name__ == "__main__":
    main()
