"""Writes `data.txt`: about 300 kB of small stories from a grammar whose entropy is known exactly.

    python examples/make_data.py    # writes data.txt beside this script and prints its true entropy

A language model is judged by how many bits it needs for each byte of text. For natural text nobody knows the
least number possible. Here we do: a story is made by random choices, each among equally likely alternatives,
and the grammar is unambiguous (the text tells which choices made it), so the text carries exactly the bits of
its choices:

    true entropy = expected bits of choice in a story / expected bytes of a story = 0.19 bits per byte

No model, however large, stays below this on average on stories it has not seen. One that comes near has learned
to spell, to form sentences, and to carry facts through a story: who lost what, which color it had, where it lay.

How to read the grammar. A rule has alternatives, on lines of their own or between bars. `{rule}` stands for one of
them, drawn anew each time. `{fact!}` draws a row of a table for the rest of the story and writes its first
column, or with `{fact!column}` another; later `{fact}` or `{fact.column}` write it again. A capital initial
makes a capital in the text, `//` starts a new line. Choices never depend on the facts, so expectations just add up.
"""

import random
import re
from functools import cache
from math import log, log2
from pathlib import Path

STORIES = 510
SEED = 1
GIRLS = "Lily Rosa Nora Zoe Ivy Clara Hana Mia"
BOYS = "Tom Ben Leo Omar Finn Jack Hugo Ravi"

TABLES = {  # the first row names the columns
    "hero": "name | who | child | he | him | his; "
    + "; ".join(f"{name} | girl named {name} | girl | she | her | her" for name in GIRLS.split())
    + "; "
    + "; ".join(f"{name} | boy named {name} | boy | he | him | his" for name in BOYS.split()),
    "elder": """
        name | he; grandmother | she; grandfather | he; aunt | she; uncle | he
        mother | she; father | he; big sister | she; big brother | he""",
    "friend": """
        name | says | home; duck | quack | pond; hen | cluck | henhouse; dog | woof | farm; cat | meow | bakery
        crow | caw | pine tree; goat | maa | mountain; pig | oink | sty; mouse | squeak | attic
        goose | honk | lake; lamb | baa | meadow; frog | croak | swamp; horse | neigh | stable
        bee | buzz | hive; lion | roar | jungle; snake | hiss | desert; wolf | howl | forest""",
    "thing": """
        name | use | used; kite | fly | flew; ball | kick | kicked; drum | beat | beat; boat | sail | sailed
        bell | ring | rang; book | read | read; top | spin | spun; flute | play | played; lamp | light | lit
        cart | pull | pulled; hat | wear | wore; broom | ride | rode; puppet | move | moved
        coin | flip | flipped; shell | hold | held; whistle | blow | blew""",
    "place": """
        at | the; under the bridge | bridge; behind the barn | barn; near the well | well
        on top of the hill | hill; beside the mill | mill; among the roses | rose garden
        by the river | river; inside the cave | cave""",
    "trait": """
        name; kind; brave; clever; shy; cheerful; patient; curious; quiet
        lively; gentle; stubborn; merry; careful; young; wise; playful""",
    "mood": """
        name; lonely; grumpy; polite; sleepy; proud; hungry; friendly; gloomy
        bored; thirsty; nervous; jealous; worried; tired; silent; homeless""",
    "color": """
        name; red; blue; green; yellow; white; black; purple; silver
        pink; gray; striped; spotted; brown; scarlet; turquoise; copper""",
    "food": """
        name; apple pie; warm bread; plum cake; pea soup; honey; sweet rice; fried fish; goat cheese
        noodles; roasted nuts; carrot stew; mashed potatoes; dumplings; baked beans; lemon tart; blueberries""",
    "day": "name; sunny; rainy; windy; snowy; foggy; cloudy; stormy; frosty",
}

RULES = {
    "story": """
        {opening} {habit} // {lost} {ask} {search} // {ending}
        {opening} {habit} // {met} {homesick} {journey} // {ending}
        {opening} {habit} // {gift} {broken} {mended} // {ending}
        {opening} {habit} // {dare} {race} {winner} // {ending}""",
    "opening": """
        Once upon a time there was a {trait!} {hero!who}. {Hero} and {hero.his} {elder!} lived {where}.
        Once there lived a {trait!} {hero!who} {where}, together with {hero.his} {elder!}.
        Once, {where}, a {trait!} {hero!who} shared a {adjective} {dwelling} with {hero.his} {elder!}.
        Long ago, a {trait!} {hero!who} and {hero.his} {elder!} had a {adjective} {dwelling} {where}.
        In a {adjective} {dwelling} {where} lived a {trait!} {hero!who} and {hero.his} {elder!}.""",
    "where": """
        at the edge of a {adjective} {land}
        in a {adjective} valley
        far from the {adjective} {land}
        close to a {adjective} {land}
        between two {adjective} hills""",
    "land": "town | desert | forest | city | garden | swamp | village | market",
    "dwelling": "house | cottage | tower | hut | windmill | tent | cabin | palace",
    "adjective": """
        tiny | dusty | lovely | narrow | big | strange | peaceful | muddy | pretty | wild | round | golden
        forgotten | crooked | cold | modest | famous | magic | noisy | sleepless | hidden | haunted | warm
        merry | gigantic | floating | fancy | rusty | pale | shiny | simple | wonderful""",
    "habit": """
        Every {time} {hero.he} ate {food!} and {hobby}.
        {Hero} loved {food!}, and each {time} {hero.he} {hobby}.
        The {trait} child liked {food!} best of all, and {hobby} every {time}.
        Nobody cooked {food!} like {hero.his} {elder}, who {hobby} each {time}.""",
    "time": "morning | evening | afternoon | night",
    "hobby": """
        sang to the {subjects} | counted the {subjects} | drew pictures of {subjects} | talked about {subjects}
        whispered to the {subjects} | dreamed of {subjects} | told tales of {subjects}
        wrote poems about {subjects}""",
    "subjects": "{adjective} {plural}",
    "plural": """
        roses | clouds | stars | tulips | ships | birds | mountains | trees | giants | dragons | kings
        queens | pirates | whales | butterflies | fireflies | castles | rivers | turtles | painters | bakers
        sailors | foxes | deer | wizards | ghosts | apples | windows | tigers | clowns | toads | pianos""",
    "oneday": """
        One {day!} {time},
        On a {day!} {time},
        Then, one {day!} {time},
        It was a {day!} {time} when""",
    # A lost thing is found by asking.
    "lost": """
        {oneday} {hero.he} could not find {hero.his} {color!} {thing!}. {sad}
        {oneday} {hero.he} lost {hero.his} {color!} {thing!}. {sad}
        {oneday} {hero.his} {color!} {thing!} was gone. {sad}""",
    "sad": """
        {Hero} {searched} {corners}, but it was not there.
        "Where is my {thing}?" {hero.he} {said}, and {searched} {corners}.
        "I cannot {thing.use} it if I cannot find it," {hero.he} {said}.
        {Hero.his} {elder} {searched} {corners} and found only {junk}.""",
    "searched": "searched | checked | emptied | cleaned",
    "corners": """
        the kitchen | every room | the garden | all the boxes | the cupboard | the cellar | both beds
        the old chest""",
    "junk": """
        a spoon | two buttons | some dust | a mouse hole | one sock | three nuts | an empty jar | dry leaves""",
    "said": "said | sighed | cried | whispered | called | shouted | sobbed | muttered",
    "ask": """
        Outside sat a {mood!} {friend!}. "{Friend.says}!" said the {friend}. "{advice}"
        So {hero.he} asked a {mood!} {friend!} for help. "{Friend.says}," it answered. "{advice}"
        Then a {mood!} {friend!} came by. "{Friend.says}, {friend.says}! {advice}\"""",
    "advice": """
        Look {place!at}.
        I saw something {color} {place!at}.
        Perhaps it is {place!at}.
        Somebody {thing.used} it {place!at}.
        Did you ever search {place!at}?""",
    "search": """
        {Hero} {went} to the {place.the}, {searched2} {number} {units}, and there it was, {state}!
        They {went} to the {place.the} together. After {number} {units} the {friend} found it, {state}.
        It took {number} {units} to reach the {place.the}, and there lay the {color} {thing}, {state}.""",
    "searched2": "searched for | dug for | waited for | looked around for",
    "went": "walked | ran | hurried | climbed | skipped | tiptoed | rode | marched",
    "number": "two | three | four | five | six | seven | eight | nine | ten | eleven | twelve | twenty",
    "units": "minutes | hours | days | weeks",
    "state": "safe and dry | covered with {cover} | wrapped in {cover} | full of {cover} | as good as new",
    "cover": "leaves | snow | mud | flowers | feathers | moss | spiderwebs | sand",
    # A friend far from home is taken there.
    "met": """
        {oneday} {hero.he} met a {mood!} {friend!} {place!at}. It had a {color!} {thing!} with it.
        {oneday} {hero.he} heard "{Friend!says}!" {place!at}. It was a {mood!} {friend} with a {color!} {thing!}.
        {oneday} {hero.his} {elder} found a {mood!} {friend!} {place!at}. It was hiding inside a {color!} {thing!}.""",
    "homesick": """
        "{Friend.says}! I want to go home to the {friend.home}," said the {friend}, "but {trouble}."
        "{Friend.says}," it said. "The {friend.home} is my home, but {trouble}."
        The {friend} {said}, "I miss the {friend.home} so much, but {trouble}.\"""",
    "trouble": """
        it is so far | the road is {hard} | my feet hurt | I lost my map | the night is {hard}
        nobody comes with me | I have been away for {number} {units} | {number} {robbers} stand in the way""",
    "hard": "dark | long | steep | wet | dangerous | icy",
    "robbers": "robbers | bears | trolls | witches | soldiers | knights",
    "journey": """
        {Hero} took its {hand}, and they {went} for {number} {units}. {arrival}
        "I know the way," {hero.he} {said}, and they {went} through the {adjective} {land}. {arrival}
        So {hero.he} packed some {food}, and off they {went}. {arrival}""",
    "hand": "paw | bag | hand | lantern | hat",
    "arrival": """
        When they saw the {friend.home}, the {friend} {thing.used} the {thing} for joy.
        At the {friend.home} everyone {cheered}, and {hero} got the {color} {thing} as a present.
        "{Friend.says}!" called all the others at the {friend.home}, and they {cheered}.""",
    "cheered": "cheered | danced | clapped | laughed | sang | jumped | wept with joy | waved",
    # A thing is broken, and the truth is told.
    "gift": """
        {oneday} {hero.his} {elder} gave {hero.him} a {color!} {thing!}. "{warning}" said the {elder}.
        {oneday} {hero.he} borrowed the {color!} {thing!} of {hero.his} {elder}. "{warning}" {elder.he} warned.
        {oneday} {hero.he} found a {color!} {thing!} with a note: "{warning} Your {elder}.\"""",
    "warning": """
        Never {thing.use} it {place!at}!
        Do not {thing.use} it {place!at}!
        You may {thing.use} it, but not {place!at}!
        Keep it safe, and do not leave it {place!at}!""",
    "broken": """
        But a {mood!} {friend!} said, "{Friend.says}, who will know?" They {went} to the {place.the}, and {broke}.
        But {hero} forgot and {thing.used} it there. A {mood!} {friend!} {cheered}, and {broke}.
        All was well. Then came a {mood!} {friend!}, they {went} to the {place.the}, and {broke}.""",
    "broke": """
        it broke into {number} pieces | it got full of {cover} | the {friend} sat on it
        the {friend} swallowed half of it | {hero} fell on it | some {robbers} trampled on it""",
    "mended": """
        {Hero} wanted to {hide} it, but then {hero.he} told {hero.his} {elder} the truth. {verdict}
        "It was me," {hero.he} {said} when {hero.his} {elder} asked about the {thing}. {verdict}
        That {time} {hero} told {hero.his} {elder} everything. {verdict}""",
    "hide": "hide | bury | burn | paint | replace | sell",
    "verdict": """
        "I broke a {thing} too when I was small," {elder.he} {said}, and {fixed} it with {material}.
        The {elder} only {laughed} and {fixed} it with {material}.
        "{Friend.says}!" said the {friend}, and {fixed} it with {material}.""",
    "fixed": "mended | fixed | repaired | patched",
    "material": "glue | string | wax | tape | honey | silk | two nails | a ribbon",
    "laughed": "laughed | smiled | nodded | sighed | winked | shrugged",
    # A race for a thing.
    "dare": """
        {oneday} a {mood!} {friend!} with a {color!} {thing!} knocked at the door. "{Friend.says}! {challenge}"
        {oneday} {hero.he} saw a {color!} {thing!}. Its owner was a {mood!} {friend!}. "{Friend.says}! {challenge}\"""",
    "challenge": """
        I will give it to you if you are first {place!at}!
        Whoever is first {place!at} may {thing.use} it!
        Let us see who gets to the meeting point {place!at} first!""",
    "race": """
        Off they {went}, past {number} {robbers}. {stop}
        The {friend} {went} much faster than {hero}. {stop}
        They {went} for {number} {units}. {stop}""",
    "stop": """
        Halfway the {friend} stopped for some {food} and fell asleep.
        Soon {hero} stopped to help {number} {robbers}.
        Then came a {adjective} {land} full of {cover}.
        Near the {adjective} {land} they both fell into the {cover}.""",
    "winner": """
        In the end {hero} was first at the {place.the} and won the {color} {thing}. {fair}
        In the end the {friend} was first at the {place.the} and kept the {color} {thing}. {fair}
        They came to the {place.the} hand in hand and shared the {color} {thing}. {fair}""",
    "fair": """
        "Well done," the {friend} {said}.
        "{Friend.says}!" it {said}, and they both {laughed}.
        Everybody {cheered}, even the {elder}.
        "Shall we try again?" {hero} {said}.""",
    "ending": """
        {supper} {after}
        {after2} {supper}
        {after}""",
    "supper": """
        Back home the {elder} had cooked {food} for {hero} and the {friend}.
        That {time} {hero} and the {mood} {friend} ate {food}, and the {elder} {hobby}.
        "{Friend.says}," said the {friend} when it tasted the {food}.
        Everybody got some {food}, and nobody was {mood} any more.""",
    "after2": """
        When {hero.he} told {hero.his} {elder} about the {place.the}, {elder.he} {laughed}.
        The {friend} went back to the {friend.home}, but it came to visit every {time}.""",
    "after": """
        From then on {hero} {thing.used} the {color} {thing} every {time}.
        On {day} days {hero} and the {friend} still {thing.use} the {color} {thing} together.
        And if you pass by the {friend.home} some {time}, you may hear them: "{Friend.says}, {friend.says}!"
        Never again did the {trait} {hero.child} go to the {place.the} without the {friend}.
        So the {mood} {friend} and the {trait} {hero.child} became friends, and {hobby}.""",
}

SYMBOL = re.compile(r"\{(\w+)(!?)\.?(\w*)\}")


@cache
def table(name: str) -> list[dict[str, str]]:
    """The rows of a table of facts, each from column to text."""
    rows = re.split(r"[;\n]", TABLES[name].strip())
    columns, *rows = [[cell.strip() for cell in row.split("|")] for row in rows]
    return [dict(zip(columns, row)) for row in rows]


@cache
def alternatives(rule: str) -> list[list[str | tuple[str, bool, str, bool]]]:
    """The alternatives of a rule, each a list of texts and of symbols: name, draws a fact, column, capital."""
    found = []
    for line in re.split(r"\n| \| ", RULES[rule].strip()):
        parts = SYMBOL.split(line.strip().replace(" // ", "\n"))
        symbols = [
            (name.lower(), bool(draw), column or next(iter(table(name.lower())[0])), name[0].isupper())
            if name.lower() in TABLES
            else (name, False, "", False)
            for name, draw, column in zip(parts[1::4], parts[2::4], parts[3::4])
        ]
        mixed = [item for pair in zip(parts[0::4], [*symbols, ""]) for item in pair]
        found.append([item for item in mixed if item])
    return found


def write(rule: str, choose, facts: dict[str, dict[str, str]]) -> str:
    """One text of a rule; `choose(n)` makes each choice, and `facts` collects the rows that were drawn."""
    options = alternatives(rule)
    text = ""
    for item in options[choose(len(options))]:
        if isinstance(item, str):
            text += item
            continue
        name, draw, column, capital = item
        if draw:
            facts[name] = table(name)[choose(len(table(name)))]
        word = facts[name][column] if column else write(name, choose, facts)
        text += word[0].upper() + word[1:] if capital else word
    return text


@cache
def measure(rule: str) -> tuple[float, float]:
    """Expected bits of choice and expected bytes of a rule's text, both exact."""
    options = alternatives(rule)
    bits, size = log2(len(options)), 0.0
    for item in (item for option in options for item in option):
        if isinstance(item, str):
            size += len(item) / len(options)
            continue
        name, draw, column, _ = item
        if not column:
            more_bits, more_bytes = measure(name)
        else:  # the fact is equally likely to be any row, whether drawn now or long ago
            more_bits = log2(len(table(name))) if draw else 0.0
            more_bytes = sum(len(row[column]) for row in table(name)) / len(table(name))
        bits += more_bits / len(options)
        size += more_bytes / len(options)
    return bits, size


def true_entropy() -> float:
    """Bits per byte of the endless text that the grammar writes: stories with a blank line after each."""
    bits, size = measure("story")
    return bits / (size + len("\n\n"))


def make_text(stories: int = STORIES, seed: int = SEED) -> str:
    """That many stories. Only `Random.random` is used, whose values are the same in every Python version."""
    draw = random.Random(seed).random
    return "".join(write("story", lambda n: int(draw() * n), {}) + "\n\n" for _ in range(stories))


def main() -> None:
    text = make_text()
    path = Path(__file__).with_name("data.txt")
    path.write_text(text, encoding="ascii", newline="\n")
    bits, size = measure("story")
    print(f"{path.name}: {STORIES} stories, {len(text)} bytes")
    print(f"a story: {bits:.1f} bits of choice in {size + 2:.1f} bytes, on average")
    print(f"true entropy: {true_entropy():.4f} bits per byte = {true_entropy() * log(2):.4f} nats")
    print("No model can stay below this on average on stories that it has not seen.")


if __name__ == "__main__":
    main()
