"""Entities the command grammar talks about: rooms, people, things to buy, music, places and open text.

Plain public words only. It holds no nicknames, house words or habits: those are what an owner teaches.
"""

import random


def _words(text: str) -> tuple[str, ...]:
    return tuple(" ".join(part.split()) for part in text.split(",") if part.strip())


ROOMS = _words(
    """
    kitchen, living room, bedroom, bathroom, hallway, office, garage, dining room, basement, attic, nursery, guest
    room, study, laundry room, pantry, balcony, garden, porch, terrace, library, master bedroom, guest bedroom,
    utility room, playroom, conservatory, cellar, entrance, workshop, corridor, staircase, studio, gym, sauna, shed,
    patio, landing, kids room, upstairs bathroom, downstairs bathroom, wardrobe
    """
)

COLORS = _words(
    """
    red, green, blue, white, yellow, orange, purple, pink, turquoise, violet, warm white, cool white, amber, cyan,
    magenta, gold, lavender, teal, lime, indigo, crimson, peach, mint, coral, ivory, salmon
    """
)

DOORS = _words(
    """
    front, back, garage, garden, side, cellar, balcony, patio, main, basement, terrace, office, shed, kitchen,
    hallway, porch, gate, entrance, workshop, attic
    """
)

APPLIANCES = _words(
    """
    coffee maker, fan, heater, television, dishwasher, washing machine, dryer, oven, kettle, humidifier, air
    purifier, toaster, radio, printer, speaker, projector, router, freezer, air conditioner, dehumidifier, rice
    cooker, electric blanket, sprinkler, fountain, pool pump, lawn mower, aquarium pump, slow cooker, extractor
    hood, stereo
    """
)

PEOPLE = _words(
    """
    Anna, Ben, Clara, David, Emma, Frank, Grace, Henry, Isabel, Jack, Katie, Liam, Maria, Noah, Olivia, Peter,
    Quinn, Rosa, Sam, Tina, Uma, Victor, Wendy, Xavier, Yusuf, Zoe, Alice, Bob, Carol, Daniel, Elena, Felix, Gina,
    Hugo, Ivan, Julia, Kevin, Laura, Mark, Nina, Oscar, Paula, Ralph, Sofia, Tom, Ursula, Vera, Walter, Amir,
    Beatrice, Chen, Dmitri, Esther, Fatima, George, Hannah, Ines, Jonas, Karim, Lena, Mohammed, Nadia, Omar, Priya,
    Rachel, Steven, Tariq, Valerie, William, Yuki, Andrea, Bruno, Cecilia, Diego, Eric, Fiona, Gustav, Helen, Igor,
    Joanna, Kurt, Linda, Martin, Natalie, Otto, Patrick, Robert, Sarah, Thomas, Veronica, Adam, Bella, Carlos,
    Diana, Edward, Francesca, Gregor, Harriet, Isaac, Jasmine, Mrs Miller, Mr Jones, Doctor Brown, aunt May, uncle
    Joe, the plumber, the landlord, the dentist, the school, the neighbour
    """
)

ITEMS = _words(
    """
    milk, eggs, bread, butter, cheese, apples, bananas, oranges, tomatoes, potatoes, onions, garlic, carrots, rice,
    pasta, flour, sugar, salt, pepper, olive oil, vinegar, coffee, tea, honey, jam, yoghurt, cream, chicken, beef,
    salmon, tuna, lettuce, cucumbers, spinach, broccoli, mushrooms, beans, lentils, peas, corn, lemons, limes,
    grapes, strawberries, blueberries, pears, peaches, melons, avocados, ginger, cinnamon, oats, cereal, crackers,
    biscuits, chocolate, ice cream, orange juice, apple juice, mineral water, beer, red wine, white wine, soap,
    shampoo, toothpaste, toilet paper, paper towels, dish soap, washing powder, sponges, bin bags, light bulbs,
    batteries, candles, matches, dog food, cat food, cat litter, nappies, tissues, aspirin, plasters, sun cream,
    razor blades, printer paper, envelopes, stamps, tape, glue, pens, notebooks, tofu, hummus, noodles, soy sauce,
    mustard, ketchup, mayonnaise, pickles, olives, walnuts, almonds, raisins, peanut butter, maple syrup, baking
    powder, yeast, vanilla sugar, frozen pizza, sausages, ham, bacon, turkey, shrimp, cod, feta, mozzarella,
    parmesan, basil, parsley, coriander, chives, zucchini, aubergines, celery, leeks, cabbage, radishes, beetroot,
    pumpkin
    """
)

UNITS = _words(
    """
    bottles of, bags of, packs of, cans of, boxes of, jars of, cartons of, kilos of, bunches of, tins of
    """
)

ARTISTS = _words(
    """
    the beatles, queen, miles davis, nina simone, bob dylan, david bowie, radiohead, daft punk, adele, abba, johnny
    cash, ella fitzgerald, louis armstrong, the rolling stones, pink floyd, led zeppelin, aretha franklin, stevie
    wonder, michael jackson, madonna, prince, nirvana, coldplay, u2, bach, mozart, beethoven, chopin, vivaldi, duke
    ellington, john coltrane, billie holiday, ray charles, elvis presley, fleetwood mac, the police, sting, peter
    gabriel, kate bush, joni mitchell, neil young, simon and garfunkel, leonard cohen, tom waits, massive attack,
    portishead, gorillaz, blur, oasis, the clash, the cure, depeche mode, kraftwerk, bjork, sade, lauryn hill, bob
    marley, buena vista social club, cesaria evora, norah jones, amy winehouse, dolly parton, willie nelson, the
    eagles, dire straits, genesis, toto, muse, metallica
    """
)

GENRES = _words(
    """
    jazz, rock, classical music, pop, blues, country, techno, house music, folk, reggae, soul, funk, hip hop, opera,
    salsa, piano music, swing, bossa nova, metal, ambient music, punk, disco, gospel, latin music, film music
    """
)

PLACES = _words(
    """
    Berlin, Paris, London, Madrid, Rome, Vienna, Prague, Oslo, Stockholm, Helsinki, Copenhagen, Amsterdam, Brussels,
    Lisbon, Dublin, Athens, Warsaw, Budapest, Zurich, Geneva, Munich, Hamburg, Milan, Naples, Barcelona, Seville,
    Porto, Lyon, Marseille, Bordeaux, Edinburgh, Glasgow, Manchester, Liverpool, New York, Boston, Chicago, Seattle,
    Denver, Austin, Miami, San Francisco, Los Angeles, Toronto, Montreal, Vancouver, Mexico City, Lima, Santiago,
    Buenos Aires, Rio, Tokyo, Osaka, Kyoto, Seoul, Beijing, Shanghai, Hong Kong, Singapore, Bangkok, Hanoi, Jakarta,
    Manila, Sydney, Melbourne, Auckland, Delhi, Mumbai, Cairo, Nairobi, Lagos, Accra, Cape Town, Tunis, Casablanca,
    Istanbul, Ankara, Tbilisi, Riga
    """
)

EVENTS = _words(
    """
    dentist, team meeting, lunch with Anna, birthday party, yoga class, piano lesson, doctor's appointment, haircut,
    parents evening, football training, book club, job interview, flight to Rome, dinner with Tom, project review,
    school play, choir practice, car service, swimming lesson, wedding, concert, board meeting, vet appointment,
    garage visit, first aid course, video call, town hall, workshop, breakfast meeting, movie night, game night,
    barbecue, eye test, therapy session, physio, planning session, language course, driving lesson, picnic, theatre,
    museum visit, blood test
    """
)

_VERBS = _words(
    """
    call, email, pay, visit, clean, fix, water, feed, pick up, book, cancel, renew, check, buy, collect, return,
    wash, order, bring, print, sign, post, charge, pack, read, prepare, sell, paint, move, empty, update, thank
    """
)
_OBJECTS = _words(
    """
    the dentist, the plants, the cat, the dog, the rent, the car, the bike, the tickets, the passport, the bins, the
    laundry, the kids, the parcel, the library books, the electricity bill, the insurance, the garden, the fridge,
    mum, dad, grandma, the landlord, the bank, the gift, the cake, the report, the contract, the phone, the
    suitcase, the windows, my boss, the curtains, the medicine, the keys, the invoice, the tax form, the photos, the
    piano teacher, the neighbours, the gutter
    """
)
_REMARKS = _words(
    """
    I'm running late, dinner is ready, I'm on my way, call me back, see you soon, happy birthday, thank you so much,
    I'll be there soon, the meeting is cancelled, where are you, good luck, the parcel has arrived, I forgot my
    keys, can you pick up the kids, I love you, we are out of milk, the train is delayed, see you at the station,
    what time do we meet, I can't make it, please bring the charger, the car is ready, I got the job, sleep well,
    the door is open, let's have lunch, I miss you, it's raining here, are you home, leave the key under the mat, we
    won the game, the doctor called, lunch is at my place, don't wait for me, I found your jacket, the dog is fine
    """
)
_SUBJECTS = _words(
    """
    the train, the bus, dinner, the game, the film, my phone, the lesson, the party, the visitor, our flight
    """
)
_STATES = _words(
    """
    is late, is over, was great, has started, is broken, is on time, is delayed, was fun, is nearly done, is here
    """
)
_SONG_A = _words(
    """
    blue, golden, midnight, broken, silent, electric, summer, lonely, wild, crystal, velvet, paper, distant, sweet
    """
)
_SONG_B = _words(
    """
    river, dreams, heart, road, sky, rain, moon, fire, shadows, city, letters, train, ocean, garden, stars, dancer
    """
)
_ONSETS = _words(
    """
    b, br, c, ch, d, dr, f, fl, g, gr, h, j, k, kr, l, m, n, p, pl, qu, r, s, sh, sk, st, t, tr, v, w, y, z
    """
)
_NUCLEI = _words(
    """
    a, e, i, o, u, ai, ea, oo, ou, y
    """
)
_CODAS = ("", "", "", "n", "r", "l", "s", "t", "x", "nd", "rk", "m", "ck", "p", "g", "lt", "v")

IMPERATIVES = _words(
    """
    turn, switch, put, light, brighten, leave, keep, shut, kill, cut, darken, black, dim, set, lower, make, bring,
    change, paint, bathe, heat, cool, warm, raise, start, stop, count, wake, alert, ping, tell, time, give, cancel,
    end, clear, delete, forget, drop, get, remove, skip, remind, add, note, play, pause, buy, order, pick, take,
    strike, cross, scratch, text, message, let, send, write, inform, notify, call, ring, phone, dial, connect,
    schedule, plan, book, block, reserve, open, lift, pull, close, lock, bolt, secure, check, unlock, release, show,
    run, power, fire, activate, deactivate, unplug, vacuum, hoover, clean, sweep, measure, track, hold, abort, halt,
    shoot, pass, find, reach, try, undo, wipe, erase, have, buzz, illuminate, report, mention
    """
)
"""Verbs a request may open with; before them `could you` and the like make sense."""


def pseudo_word(rng: random.Random) -> str:
    """A made-up word of one or two syllables, so that a slot can only be filled by copying."""
    parts = (rng.choice(_ONSETS) + rng.choice(_NUCLEI) + rng.choice(_CODAS) for _ in range(rng.choice((1, 2, 2, 2))))
    return "".join(parts)


def pseudo_name(rng: random.Random, longest: int = 3) -> str:
    """One to `longest` made-up words, in lower case or with capitals."""
    words = [pseudo_word(rng) for _ in range(min(rng.choice((1, 1, 2, 3)), longest))]
    return " ".join(words).title() if rng.random() < 0.4 else " ".join(words)


def mixed(rng: random.Random, known: tuple[str, ...], made_up: float, longest: int = 2) -> str:
    """A known entity, or with probability `made_up` an invented one."""
    if rng.random() < made_up:
        return pseudo_name(rng, longest)
    name = rng.choice(known)
    return name.lower() if rng.random() < 0.4 else name


def task(rng: random.Random) -> str:
    """Something to be reminded of, such as `water the plants`."""
    thing = rng.choice(_OBJECTS) if rng.random() < 0.85 else f"the {pseudo_word(rng)}"
    return f"{rng.choice(_VERBS)} {thing}"


def remark(rng: random.Random) -> str:
    """The text of a message."""
    draw = rng.random()
    if draw < 0.5:
        text = rng.choice(_REMARKS)
        return text[0].lower() + text[1:] if rng.random() < 0.4 and not text.startswith("I") else text
    if draw < 0.85:
        return f"{rng.choice(_SUBJECTS)} {rng.choice(_STATES)}"
    return f"the {pseudo_word(rng)} {rng.choice(_STATES)}"


def song(rng: random.Random) -> str:
    """A song title, composed or made up."""
    if rng.random() < 0.25:
        return pseudo_name(rng)
    title = f"{rng.choice(_SONG_A)} {rng.choice(_SONG_B)}"
    if rng.random() < 0.3:
        title = f"the {title}"
    return title.title() if rng.random() < 0.3 else title
