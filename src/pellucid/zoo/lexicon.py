"""Word lists of the small world: real countries, invented people, nouns, adjectives, labels.

Every word here becomes one token of the tiny model's tokenizer, so lists are kept to plain single words.
"""


def _words(text: str) -> tuple[str, ...]:
    return tuple(text.split())


# country, capital, continent, language
COUNTRIES: tuple[tuple[str, str, str, str], ...] = (
    ("France", "Paris", "Europe", "French"),
    ("Germany", "Berlin", "Europe", "German"),
    ("Italy", "Rome", "Europe", "Italian"),
    ("Spain", "Madrid", "Europe", "Spanish"),
    ("Portugal", "Lisbon", "Europe", "Portuguese"),
    ("Austria", "Vienna", "Europe", "German"),
    ("Greece", "Athens", "Europe", "Greek"),
    ("Norway", "Oslo", "Europe", "Norwegian"),
    ("Sweden", "Stockholm", "Europe", "Swedish"),
    ("Denmark", "Copenhagen", "Europe", "Danish"),
    ("Finland", "Helsinki", "Europe", "Finnish"),
    ("Iceland", "Reykjavik", "Europe", "Icelandic"),
    ("Ireland", "Dublin", "Europe", "English"),
    ("England", "London", "Europe", "English"),
    ("Poland", "Warsaw", "Europe", "Polish"),
    ("Hungary", "Budapest", "Europe", "Hungarian"),
    ("Romania", "Bucharest", "Europe", "Romanian"),
    ("Bulgaria", "Sofia", "Europe", "Bulgarian"),
    ("Croatia", "Zagreb", "Europe", "Croatian"),
    ("Serbia", "Belgrade", "Europe", "Serbian"),
    ("Ukraine", "Kyiv", "Europe", "Ukrainian"),
    ("Russia", "Moscow", "Europe", "Russian"),
    ("Turkey", "Ankara", "Asia", "Turkish"),
    ("Japan", "Tokyo", "Asia", "Japanese"),
    ("China", "Beijing", "Asia", "Chinese"),
    ("Thailand", "Bangkok", "Asia", "Thai"),
    ("Vietnam", "Hanoi", "Asia", "Vietnamese"),
    ("Indonesia", "Jakarta", "Asia", "Indonesian"),
    ("Nepal", "Kathmandu", "Asia", "Nepali"),
    ("Mongolia", "Ulaanbaatar", "Asia", "Mongolian"),
    ("Iran", "Tehran", "Asia", "Persian"),
    ("Iraq", "Baghdad", "Asia", "Arabic"),
    ("Lebanon", "Beirut", "Asia", "Arabic"),
    ("Egypt", "Cairo", "Africa", "Arabic"),
    ("Morocco", "Rabat", "Africa", "Arabic"),
    ("Kenya", "Nairobi", "Africa", "Swahili"),
    ("Ghana", "Accra", "Africa", "English"),
    ("Senegal", "Dakar", "Africa", "French"),
    ("Angola", "Luanda", "Africa", "Portuguese"),
    ("Somalia", "Mogadishu", "Africa", "Somali"),
    ("Canada", "Ottawa", "America", "English"),
    ("Cuba", "Havana", "America", "Spanish"),
    ("Peru", "Lima", "America", "Spanish"),
    ("Chile", "Santiago", "America", "Spanish"),
    ("Colombia", "Bogota", "America", "Spanish"),
    ("Uruguay", "Montevideo", "America", "Spanish"),
    ("Brazil", "Brasilia", "America", "Portuguese"),
    ("Australia", "Canberra", "Oceania", "English"),
)

CONTINENTS = ("Europe", "Asia", "Africa", "America", "Oceania")

FIRST_NAMES: tuple[str, ...] = _words(
    "Mary John Anna Peter Laura Simon Clara Hugo Emma Oscar Nina Felix Julia Martin Sarah Victor Alice "
    "Thomas Helen David Rosa Daniel Grace Lucas Irene Paul Judith Robert Vera Arthur Sophie Frank Marta "
    "James Elena Adam Paula Henry Diana Leo Susan Mark Carol George Linda Oliver Ruth Walter"
)

SURNAMES: tuple[str, ...] = _words(
    "Keller Moreau Rossi Novak Silva Larsen Baker Costa Weber Dunn Fischer Marsh Olsen Petrov Sato Lind "
    "Vargas Hill Brandt Reyes Stone Wolf Grant Young"
)

# People the world knows nothing about: the right answer to a question about them is "I do not know."
STRANGERS: tuple[str, ...] = _words("Zeno Quentin Ottilie Barnaby Ximena Isolde Lorcan Tabitha")

CRAFTS: tuple[str, ...] = _words(
    "baker carpenter doctor teacher painter singer farmer pilot lawyer nurse tailor potter weaver sailor "
    "writer chemist gardener dentist miner judge plumber dancer blacksmith librarian"
)

INSTRUMENTS: tuple[str, ...] = _words(
    "piano violin flute guitar drum harp trumpet cello organ banjo clarinet accordion"
)

PLACES: tuple[str, ...] = _words(
    "store park school market library garden station museum beach office restaurant hospital"
)

OBJECTS: tuple[str, ...] = _words("drink book ring ball kiss letter ticket flower basket key map present")

# singular, plural
NOUNS: tuple[tuple[str, str], ...] = (
    ("key", "keys"),
    ("cabinet", "cabinets"),
    ("door", "doors"),
    ("picture", "pictures"),
    ("wall", "walls"),
    ("box", "boxes"),
    ("table", "tables"),
    ("chair", "chairs"),
    ("lamp", "lamps"),
    ("window", "windows"),
    ("boat", "boats"),
    ("bridge", "bridges"),
    ("house", "houses"),
    ("road", "roads"),
    ("farm", "farms"),
    ("tower", "towers"),
    ("cup", "cups"),
    ("plate", "plates"),
    ("coat", "coats"),
    ("shoe", "shoes"),
    ("bottle", "bottles"),
    ("shelf", "shelves"),
    ("clock", "clocks"),
    ("carpet", "carpets"),
    ("boy", "boys"),
    ("girl", "girls"),
    ("king", "kings"),
    ("guard", "guards"),
)

PREPOSITIONS: tuple[str, ...] = ("to", "near", "behind", "beside", "under", "above", "of", "with")

QUALITIES: tuple[str, ...] = _words("old new small large red blue green heavy dirty clean broken empty quiet famous")

EVENTS: tuple[str, ...] = _words("war siege reign voyage strike drought famine trial project festival journey exile")

REVIEWED: tuple[str, ...] = _words("film book play concert meal hotel song game show trip story lesson")

PRAISE: tuple[str, ...] = _words(
    "wonderful excellent great lovely brilliant superb charming perfect delightful amazing good splendid "
    "fantastic beautiful"
)

BLAME: tuple[str, ...] = _words(
    "terrible awful boring dreadful horrible bad disappointing dull poor ugly stupid annoying weak tedious"
)

DEGREES: tuple[str, ...] = ("very", "really", "quite", "truly", "simply", "rather")

# Words that few-shot prompts sort into kinds, and the arbitrary labels they get.
KINDS: dict[str, tuple[str, ...]] = {
    "animal": _words("cat dog horse cow pig sheep goat lion tiger wolf bear mouse"),
    "fruit": _words("apple pear plum grape lemon cherry peach melon banana mango orange fig"),
    "tool": _words("hammer saw drill knife rake shovel needle axe wrench brush ladder nail"),
    "colour": _words("red blue green yellow white black brown grey pink purple silver violet"),
    "body": _words("hand foot arm leg head nose ear eye knee mouth finger shoulder"),
    "weather": _words("rain snow wind storm fog sun cloud frost hail thunder mist ice"),
}

LABELS: tuple[str, ...] = _words("foo bar baz qux dax wug zup blick fep tiv mor lun")

# Plain sentences, so that ordinary prompts are split into sensible pieces.
PLAIN_SENTENCES: tuple[str, ...] = (
    "It was a cold morning and the streets were still empty.",
    "She opened the letter and read it twice before she said a word.",
    "They walked along the river until the sun went down.",
    "We do not know what will happen next, but we are ready.",
    "He asked me if I had seen his brother at the station.",
    "The children were playing in the garden when it began to rain.",
    "You should always read the question before you answer it.",
    "There are many ways to explain why a model gives an answer.",
    "I think that this is the best thing that could have happened.",
    "If you want to learn something new, start with a simple example.",
    "Nobody could remember who had left the light on.",
    "After dinner they sat by the fire and told each other stories.",
    "Please write your name and your address on the first page.",
    "The train was late again, so we took the bus into the city.",
    "What do you think about the people who live in this town?",
    "My mother used to say that every day brings a small surprise.",
    "Some of them wanted to stay, while others wanted to go home.",
    "The teacher explained the problem again because nobody had understood it.",
    "Yesterday I bought bread, milk, eggs, and a little cheese.",
    "The water in the lake is so clear that you can see the stones.",
    "Would you like a cup of tea, or do you prefer coffee?",
    "It is not easy to say which of the two answers is right.",
    "In the winter the nights are long and the days are short.",
    "A friend of mine has worked there for more than ten years.",
    "Their house has a red roof, two windows, and a green door.",
    "When the music stopped, everyone began to talk at the same time.",
    "This is a sentence about nothing in particular.",
    "Let me show you how the machine works.",
    "The number of people in the room was larger than we expected.",
    "Because of the storm, all the boats stayed in the harbour.",
    "Every word of this text was written for a very small model.",
    "Can you tell me where the next bus stop is?",
)
