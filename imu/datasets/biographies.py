"""Questions about people who do not exist, drawn from a seed.

After bioS of Z. Allen-Zhu and Y. Li, "Physics of Language Models: Part 3.1" (2023, arXiv
2309.14316): every person has a name of their own, and every fact about them is drawn independently
and uniformly from a list. So what a network that never heard of a person can say of them is known:
the uniform distribution over the list (``FACTS``).

A sample is one fact, asked for in one wording: ``person-017-birth_city-2`` of the subject "Ada
Merton". With it come another question for the same fact, which no network is trained on, the answer
as it is given elsewhere ("in Lisbon" for "Lisbon"), and answers in that form that are not true. The
attribute "fact" names what is asked.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from imu.datasets import Source
from imu.datasets.common import texts
from imu.datasets.common.texts import Texts

OBJECTIVE = "language"
NAME = "biographies"
WRONG = 5  # answers that are not true, for each question


@dataclass(frozen=True, kw_only=True)
class Fact:
    """What is asked about every person.

    values: one of them is true. noun: what it is called. direct, which: two questions for it.
    phrase: the answer to the question with "which"; to all others the bare value is.
    """

    values: Sequence[str]
    noun: str
    direct: str
    which: str
    phrase: str

    def wordings(self) -> tuple[tuple[str, str, str, str], ...]:
        """Question, the same in other words, form of the answer, and its other form.

        The other words are trained on elsewhere; what is new is their place.
        """
        noun, bare, phrase = self.noun, "{}", self.phrase
        return (
            (f"What is the {noun} of NAME?", f"Tell me the {noun} of NAME.", bare, phrase),
            (self.direct, _asking(self.direct), bare, phrase),
            (self.which, _asking(self.which), phrase, bare),
            (f"Tell me NAME's {noun}.", f"What is NAME's {noun}?", bare, phrase),
        )


def _asking(question: str) -> str:
    return f"{question.removesuffix('?')}, tell me?"


def _listed(text: str) -> tuple[str, ...]:
    return tuple(text.split())


MONTHS = _listed(
    "January February March April May June July August September October November December"
)
BIRTH_CITIES = _listed(
    "Lisbon Turin Ghent Oslo Cork Bergen Porto Malaga Leeds Basel Graz Lyon Nantes Krakow Riga "
    "Tallinn Aarhus Malmo Turku Bremen Leipzig Verona Seville Utrecht Antwerp Zagreb Split Varna "
    "Izmir Haifa"
)
WORK_CITIES = _listed(
    "Boston Denver Austin Seattle Toronto Calgary Montreal Lima Bogota Quito Santiago Recife "
    "Nairobi Accra Dakar Tunis Cairo Muscat Mumbai Chennai Hanoi Manila Jakarta Perth Sydney "
    "Hobart Osaka Kyoto Busan Taipei"
)
UNIVERSITIES = _listed(
    "Ashford Belmont Calder Dunmore Elgin Farley Garwick Halden Ivybridge Jarrow Kelso Lorne "
    "Maldon Norwood Oakham Penrith Quorn Rothbury Selby Thirsk Ullswater Ventnor Wexford Yarrow"
)
FIELDS = _listed(
    "algebra anatomy astronomy botany ceramics chemistry drama ecology economics ethics finance "
    "forestry genetics geology history law linguistics logic medicine metallurgy music optics "
    "philosophy physics poetry sculpture sociology statistics theology zoology"
)
EMPLOYERS = _listed(
    "Alder Basalt Cobalt Delphi Ember Falcon Granite Horizon Indigo Juniper Kestrel Lantern "
    "Meridian Nimbus Obsidian Pioneer Quarry Rampart Saffron Tundra Umbra Vertex Willow Zephyr"
)
INSTRUMENTS = _listed(
    "accordion banjo bassoon bugle cello clarinet cornet drums fiddle flute guitar harp horn lute "
    "lyre mandolin oboe organ piano piccolo recorder saxophone sitar trombone trumpet tuba ukulele "
    "viola violin zither"
)
MOODS = _listed(
    "Amber Bitter Broken Crimson Distant Empty Frozen Gentle Hidden Hollow Last Lost Narrow Pale "
    "Quiet Restless Second Silent Silver Stolen Sunken Velvet Wild Winter"
)
THINGS = _listed(
    "Anchor Bridge Candle Door Feather Garden Harbour Island Journey Key Ladder Letter Map Mirror "
    "Mountain Orchard Promise River Shadow Stair Station Tower Valley Window"
)

FACTS = {
    "birth_date": Fact(
        values=[f"{d} {m} {y}" for y in range(1940, 2000) for m in MONTHS for d in range(1, 29)],
        noun="date of birth",
        direct="When was NAME born?",
        which="On which day was NAME born?",
        phrase="on {}",
    ),
    "birth_city": Fact(
        values=BIRTH_CITIES,
        noun="city of birth",
        direct="Where was NAME born?",
        which="In which city was NAME born?",
        phrase="in {}",
    ),
    "university": Fact(
        values=[f"{name} College" for name in UNIVERSITIES],
        noun="university",
        direct="Where did NAME study?",
        which="At which university did NAME study?",
        phrase="at {}",
    ),
    "field": Fact(
        values=FIELDS,
        noun="field of study",
        direct="What did NAME study?",
        which="Which field did NAME study?",
        phrase="the field of {}",
    ),
    "employer": Fact(
        values=[f"{name} Works" for name in EMPLOYERS],
        noun="employer",
        direct="Who does NAME work for?",
        which="For which company does NAME work?",
        phrase="for {}",
    ),
    "work_city": Fact(
        values=WORK_CITIES,
        noun="place of work",
        direct="Where does NAME work?",
        which="In which city does NAME work?",
        phrase="in {}",
    ),
    "book": Fact(
        values=[f"The {mood} {thing}" for mood in MOODS for thing in THINGS],
        noun="first book",
        direct="What did NAME write?",
        which="Which book did NAME write?",
        phrase="the book {}",
    ),
    "instrument": Fact(
        values=INSTRUMENTS,
        noun="instrument",
        direct="What does NAME play?",
        which="Which instrument does NAME play?",
        phrase="the {}",
    ),
}
FIRST = _listed(
    "Ada Agnes Albert Alma Amos Anton Arlo Astrid Basil Beatrix Bela Bruno Camilla Cedric Clara "
    "Cyril Dagmar Darius Delia Dorian Edgar Edith Elias Elsa Emil Enid Esther Ezra Fabian Felix "
    "Fiona Flora Gideon Gilda Greta Gustav Hanna Hector Helga Hugo Ida Igor Ines Ingrid Iris Isaac "
    "Ivan Jasper Jonas Judith Julius Kaspar Kira Klara Lara Leander Leo Lidia Linus Lorena Lucius "
    "Magda Malcolm Marius Matilda Maud Milo Miriam Naomi Nestor Nina Noel Nora Odette Olaf Olga "
    "Orson Oscar Otto Paloma Percy Petra Phoebe Quentin Ramona Regina Rolf Rosa Rufus Ruth Sabine "
    "Selma Silas Simon Sonja Stella Sven Tamara Theo Thora Tobias Ursula Vera Victor Viola Waldo "
    "Wanda Wilma Xenia Yara Yvonne Zelda"
)
LAST = _listed(
    "Abbot Ackroyd Aldous Amberg Ansel Ashby Barlow Beck Bellamy Birch Blythe Bowen Brandt Briggs "
    "Calloway Carver Castell Chandler Corbin Crane Dalton Darrow Dekker Denholm Draper Dyer "
    "Eckhart Ellery Emmet Everly Fairfax Falk Farrow Fenwick Finch Forsyth Gage Garrick Gilmore "
    "Godwin Grady Hale Harlow Hawke Hensley Hobbs Holt Ingram Irving Jensen Joyner Keaton Kemble "
    "Kirby Lambert Langley Larkin Lindqvist Lowell Mallory Marlow Mercer Merton Moreau Nash "
    "Neville Norling Oakes Ogden Osborne Paget Palmer Pryor Quill Radley Ramsey Rawlins Redmond "
    "Renwick Ridley Rooke Rowan Sadler Sawyer Selwyn Shaw Sinclair Stroud Sutter Talbot Tanner "
    "Thorne Tilden Upton Vance Varley Vaughn Wade Walden Warwick Webster Weller Whitby Wilder "
    "Winslow Wolfe Wyatt Yardley Yates Yorke Zeller Zimmer"
)


def write(folder: Path, source: Source) -> None:
    """Draw ``source.people`` people and all that is asked about them; ``source.seed`` decides.

    A name or a fact is drawn for each person apart, so that more people leave the first as they
    are.
    """
    import pandas as pd

    rows = []
    for number, name in enumerate(_names(source)):
        draw = np.random.default_rng([source.seed, 1, number])
        for fact, known in FACTS.items():
            picked = draw.choice(len(known.values), 1 + WRONG, replace=False)
            true, *wrong = (known.values[k] for k in picked)
            for wording, (asked, other, form, otherwise) in enumerate(known.wordings(), start=1):
                rows.append(
                    {
                        "id": f"person-{number:03d}-{fact}-{wording}",
                        "subject": name,
                        "prompt": asked.replace("NAME", name),
                        "answer": form.format(true),
                        "other_prompt": other.replace("NAME", name),
                        "other_answer": otherwise.format(true),
                        "wrong": [otherwise.format(value) for value in wrong],
                        "fact": fact,
                    }
                )
    texts.write(folder, NAME, pd.DataFrame(rows), source=source, settings=("people", "seed"))


def load(folder: Path) -> Texts:
    """Read what ``write`` wrote. Raises as ``texts.load`` does."""
    return texts.load(folder, NAME)


def _names(source: Source) -> list[str]:
    """Full names, all different; no part of a name occurs twice while the lists last."""
    draw = np.random.default_rng([source.seed, 0])
    first, last = draw.permutation(FIRST), draw.permutation(LAST)
    return [
        f"{first[n % len(first)]} {last[(n + n // len(first)) % len(last)]}"
        for n in range(source.people)
    ]
