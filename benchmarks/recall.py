"""How much of a public set of sentences the redactor finds: templates and people of presidio-evaluator (MIT licence).

Neither the sentences nor the packages are part of this project:
`pip install faker && pip install --no-deps presidio-evaluator`, then `python benchmarks/recall.py`.
Each template is filled `--rounds` times with made-up values of fourteen countries; a value counts as found when it is
no longer in the text.
"""

from __future__ import annotations

import argparse
import csv
import random
import re
from collections import Counter
from collections.abc import Callable
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from portalshield.rules.redaction import Redactor

COUNTRIES = (
    "en_US", "en_GB", "de_DE", "fr_FR", "es_ES", "it_IT", "nl_NL", "sv_SE", "pl_PL", "pt_BR", "en_AU", "en_CA", "da_DK",
    "cs_CZ",
)  # fmt: skip
LABELLED = ("email", "credit_card_number", "iban", "ssn", "ip_address", "phone_number")
_OTHER = {"person": "name", "organization": "company", "age": "random_int", "nationality": "country"}
_FIELD = re.compile(r"{{([a-z_]+)}}")


class People:
    """Values for the fields of a template, from a fixed seed."""

    def __init__(self, folder: Path, faker: Callable[[str], Any]) -> None:
        self._random = random.Random(3)
        self._fakes = [faker(country) for country in COUNTRIES]
        for fake in self._fakes:
            fake.seed_instance(7)
        with (folder / "FakeNameGenerator.com_3000.csv").open(encoding="utf-8-sig") as rows:
            self._people = list(csv.DictReader(rows))

    def value(self, field: str) -> str:
        """One value; what has no generator is some company."""
        american, fake = self._fakes[0], self._random.choice(self._fakes)
        person = self._random.choice(self._people)
        phone = person["TelephoneNumber"]
        choices = {
            "phone_number": lambda: (
                phone, f"+{person['TelephoneCountryCode']} {phone}", fake.phone_number(), american.phone_number()
            ),
            "email": lambda: (person["EmailAddress"], fake.email(), fake.company_email()),
            "credit_card_number": lambda: (american.credit_card_number(),),
            "iban": lambda: (fake.iban(),),
            "ssn": lambda: (american.ssn(),),
            "ip_address": lambda: (american.ipv4_public(), american.ipv6()),
        }  # fmt: skip
        if field in choices:
            return self._random.choice(choices[field]())
        return str(getattr(american, _OTHER.get(field, field), american.company)())


def measured(templates: list[str], people: People, rounds: int) -> tuple[Counter[str], Counter[str], int, int]:
    """Values and found values by label; sentences without a label, and those of them that changed."""
    redactor = Redactor()
    values: Counter[str] = Counter()
    found: Counter[str] = Counter()
    plain = changed = 0
    for template in templates * rounds:
        drawn: list[tuple[str, str]] = []

        def filled(match: re.Match[str], drawn: list[tuple[str, str]] = drawn) -> str:
            drawn.append((match[1], people.value(match[1])))
            return drawn[-1][1]

        text = _FIELD.sub(filled, template)
        out = redactor.text(text)
        labelled = [(label, value) for label, value in drawn if label in LABELLED]
        values.update(label for label, _ in labelled)
        found.update(label for label, value in labelled if value not in out)
        plain += not labelled
        changed += not labelled and out != text
    return values, found, plain, changed


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=60)
    rounds = parser.parse_args().rounds
    package = find_spec("presidio_evaluator")
    if package is None or find_spec("faker") is None or not package.submodule_search_locations:
        raise SystemExit(__doc__)
    from faker import Faker  # type: ignore[import-not-found]

    folder = Path(package.submodule_search_locations[0]) / "data_generator" / "raw_data"
    templates = [line.strip() for line in (folder / "templates.txt").read_text().splitlines() if line.strip()]
    values, found, plain, changed = measured(templates, People(folder, Faker), rounds)
    for label in LABELLED:
        print(f"{label:20}{values[label]:>7}{100 * found[label] / values[label]:>8.1f} %")
    print(f"{'all of these':20}{values.total():>7}{100 * found.total() / values.total():>8.1f} %")
    print(f"{'others that changed':20}{plain:>7}{100 * changed / plain:>8.1f} %")


if __name__ == "__main__":
    main()
