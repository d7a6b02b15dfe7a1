"""Facts about the story world: its animals, names, colours and categories.

Stories and instructions both use these tables, so instructions ask about facts that the stories contain.
"""

from __future__ import annotations

from dataclasses import dataclass

from scratchlm.data.samples.word_lists import listed


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
    skills: frozenset[str] = frozenset()

    @property
    def home_name(self) -> str:
        """The home without its preposition, e.g. `a burrow`."""
        return self.home.partition(" ")[2]


def _animals(*rows: tuple[str, str, str, str, str, int, str, str, str]) -> dict[str, Animal]:
    return {row[0]: Animal(*row[:8], skills=frozenset(row[8].split())) for row in rows}


ANIMALS = _animals(
    ("bee", "bees", "nectar", "in a hive", "yellow", 1, "buzz", "", "fly"),
    ("mouse", "mice", "cheese", "in a hole", "grey", 3, "squeak", "", ""),
    ("frog", "frogs", "flies", "in a pond", "green", 4, "croak", "tadpole", "swim"),
    ("squirrel", "squirrels", "nuts", "in a hollow tree", "red", 6, "", "", "climb"),
    ("hedgehog", "hedgehogs", "worms", "under a hedge", "brown", 7, "", "", ""),
    ("crow", "crows", "seeds", "in a nest", "black", 8, "caw", "", "fly"),
    ("owl", "owls", "moths", "in an oak tree", "brown", 9, "hoot", "", "fly"),
    ("duck", "ducks", "bread", "by the river", "white", 10, "quack", "duckling", "swim"),
    ("hen", "hens", "corn", "in a henhouse", "brown", 10, "cluck", "chick", ""),
    ("rabbit", "rabbits", "carrots", "in a burrow", "grey", 11, "", "", ""),
    ("cat", "cats", "fish", "in a basket", "black", 12, "meow", "kitten", "climb"),
    ("fox", "foxes", "berries", "in a den", "red", 14, "", "", ""),
    ("dog", "dogs", "bones", "in a kennel", "brown", 16, "woof", "puppy", ""),
    ("goat", "goats", "leaves", "on a hill", "white", 19, "", "", "climb"),
    ("sheep", "sheep", "clover", "in a meadow", "white", 20, "baa", "lamb", ""),
    ("pig", "pigs", "turnips", "in a sty", "pink", 21, "oink", "piglet", ""),
    ("bear", "bears", "honey", "in a cave", "brown", 25, "growl", "cub", "big"),
    ("cow", "cows", "grass", "in a barn", "white", 27, "moo", "calf", "big"),
    ("horse", "horses", "oats", "in a stable", "brown", 29, "neigh", "foal", "big"),
)

GIRLS = ("Mia", "Anna", "Lily", "Rosa", "Ella", "Nora", "Ivy", "Ruby", "Zoe", "Emma", "Clara", "Lucy")
BOYS = ("Tom", "Ben", "Sam", "Max", "Leo", "Jack", "Finn", "Noah", "Adam", "Hugo", "Peter", "Theo")
HER_ANIMAL_NAMES = ("Poppy", "Daisy", "Hazel", "Willow", "Bella", "Molly", "Tilly", "Dora", "Flora", "Pearl")
HIS_ANIMAL_NAMES = ("Pip", "Bruno", "Rusty", "Toby", "Oliver", "Otto", "Barney", "Fred", "Jasper", "Milo")

TRAITS = listed(
    "kind shy brave curious clever cheerful quiet gentle careful busy merry friendly polite sleepy"
)  # names of characters
# traits that friends praise
VIRTUES = tuple(trait for trait in TRAITS if trait not in ("shy", "quiet", "sleepy"))
COLOURS = ("red", "blue", "green", "yellow", "orange", "purple", "white", "brown", "black", "pink")

COLOUR_FACTS = {  # thing -> its colour in the story world
    "the grass": "green",
    "the sky": "blue",
    "the snow": "white",
    "the sun": "yellow",
    "a carrot": "orange",
    "a pumpkin": "orange",
    "a plum": "purple",
    "a strawberry": "red",
    "a cherry": "red",
    "a pea": "green",
    "milk": "white",
    "a lemon": "yellow",
    "the night": "black",
    "a sunflower": "yellow",
    "a tomato": "red",
    "chocolate": "brown",
}

CATEGORIES = {  # kind of thing -> its members
    "an animal": (
        "cow", "horse", "pig", "dog", "cat", "frog", "fox", "bear", "mouse", "hen", "duck", "goat", "rabbit",
        "sheep", "owl", "squirrel", "hedgehog", "crow",
    ),
    "a fruit": ("apple", "plum", "pear", "cherry", "lemon", "strawberry", "peach", "grape", "melon"),
    "a vegetable": ("carrot", "pea", "turnip", "potato", "bean", "onion", "cabbage", "radish"),
    "a toy": ("kite", "ball", "doll", "puzzle", "top", "teddy", "yo-yo"),
    "clothing": ("hat", "scarf", "coat", "mitten", "sock", "boot", "shirt", "dress", "apron"),
    "a colour": COLOURS,
    "furniture": ("chair", "table", "bed", "bench", "desk", "stool", "shelf", "cupboard"),
    "a tool": ("hammer", "spade", "rake", "saw", "axe", "brush", "needle", "shovel"),
    "a flower": ("rose", "daisy", "tulip", "sunflower", "poppy", "lily", "violet"),
    "a drink": ("milk", "water", "tea", "juice", "lemonade", "cocoa"),
    "an instrument": ("drum", "flute", "fiddle", "trumpet", "harp", "guitar"),
}  # fmt: skip
