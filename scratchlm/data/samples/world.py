"""Facts about the story world: its animals, names, colours and categories, from sheets/world.toml."""

from dataclasses import dataclass

from scratchlm.core.toml_tables import package_table


@dataclass(frozen=True)
class Animal:
    """One kind of animal and facts about it; "" means that there is no such fact."""

    name: str
    plural: str
    food: str
    home: str  # with its preposition
    colour: str
    size: int  # rank from the bee (1) up; a difference of two or more is clearly bigger
    sound: str = ""
    young: str = ""
    skill_names: str = ""

    @property
    def skills(self) -> frozenset[str]:
        """What it can do, e.g. `swim`."""
        return frozenset(self.skill_names.split())

    @property
    def home_name(self) -> str:
        """The home without its preposition, e.g. `a burrow`."""
        return self.home.partition(" ")[2]


WORLD = package_table("scratchlm.data.samples", "sheets/world.toml")
ANIMALS = {row[0]: Animal(*row) for row in WORLD["animals"]}
GIRLS: tuple[str, ...] = tuple(WORLD["girls"])
BOYS: tuple[str, ...] = tuple(WORLD["boys"])
HER_ANIMAL_NAMES, HIS_ANIMAL_NAMES = tuple(WORLD["her_animal_names"]), tuple(WORLD["his_animal_names"])
COLOURS: tuple[str, ...] = tuple(WORLD["colours"])
CATEGORIES: dict[str, list[str]] = WORLD["categories"]  # kind of thing -> its members
