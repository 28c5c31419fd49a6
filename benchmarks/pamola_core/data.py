"""The input of every operation: some hundreds of people, the same in each run."""

from __future__ import annotations

import numpy as np
import pandas as pd

ROWS = 400
_SEED = 20260101
_FIRST = ["Anna", "Boris", "Chloé", "Dmitri", "Elena", "Farid", "Grace", "Hiro", "Ines", "José"]
_LAST = ["Ahmed", "Brown", "Carter", "Dubois", "Évora", "Fischer", "García", "O'Neil", "Żak"]
_CITIES = ["Toronto", "Montréal", "Vancouver", "Calgary", "Québec", "Halifax"]
_JOBS = ["nurse", "teacher", "engineer", "driver, night", 'chef "de partie"', "clerk"]
_SKILLS = ["python", "sql", "excel", "welding", "french"]


def people() -> pd.DataFrame:
    """Identifiers, quasi-identifiers and a salary, with blanks, quotes, commas and accents."""
    random = np.random.default_rng(_SEED)
    first, last = random.choice(_FIRST, ROWS), random.choice(_LAST, ROWS)
    born = pd.Timestamp("1950-01-01") + pd.to_timedelta(random.integers(0, 20000, ROWS), "D")
    frame = pd.DataFrame(
        {
            "id": np.arange(1, ROWS + 1),
            "first_name": first,
            "last_name": last,
            "full_name": [f"{one} {two}" for one, two in zip(first, last, strict=True)],
            "email": [
                f"user{number}@example.{'com' if number % 3 else 'org'}" for number in range(ROWS)
            ],
            "phone": [f"+1416555{row:04d}" for row in range(ROWS)],
            "gender": random.choice(["F", "M"], ROWS),
            "birth_date": born,
            "age": random.integers(18, 80, ROWS),
            "children": random.integers(0, 5, ROWS),
            "salary": random.normal(60000, 15000, ROWS).round(2),
            "city": random.choice(_CITIES, ROWS),
            "job": random.choice(_JOBS, ROWS),
            "person": random.integers(1, ROWS // 2, ROWS),
            "skills": [str(sorted(set(random.choice(_SKILLS, 3)))) for _ in range(ROWS)],
        }
    )
    frame.loc[random.choice(ROWS, 25, replace=False), "salary"] = np.nan
    frame.loc[random.choice(ROWS, 25, replace=False), "job"] = None
    return frame


def shifted() -> pd.DataFrame:
    """The same people after a transformation: what a metric compares them with."""
    random = np.random.default_rng(_SEED + 1)
    frame = people()
    frame["salary"] = (frame["salary"] + random.normal(0, 2000, ROWS)).round(2)
    frame["age"] = (frame["age"] // 5) * 5
    return frame


def cards() -> pd.DataFrame:
    """A table with one row for each person, to merge with."""
    random = np.random.default_rng(_SEED + 2)
    holders = random.permutation(np.arange(1, ROWS + 1))
    return pd.DataFrame({"holder": holders, "limit": random.integers(1, 20, ROWS) * 500})
