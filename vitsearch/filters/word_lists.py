"""The words that the grammar of queries knows, English and Spanish.

They are in lower case and without accents (ñ is a letter), with commas between. A word of two
meanings is a word of the picture unless its form makes the other one plain; docs/search.md has the
rules.
"""

import re
from collections.abc import Iterable
from functools import cache
from typing import Any


def comma_words(text: str) -> list[str]:
    """Return the words or phrases of a text with commas between them."""
    return [word for part in text.split(",") if (word := " ".join(part.split()))]


def _aliases(text: str) -> dict[str, list[str]]:
    pairs = (entry.split("=") for entry in text.split(";"))
    return {" ".join(name.split()): comma_words(others) for name, others in pairs}


LISTS: dict[str, Any] = {
    # names by their number; abbreviations only beside a year; ``two_meanings`` never by themselves
    "months": {
        "names": [
            comma_words("january, enero"),
            comma_words("february, febrero"),
            comma_words("march, marzo"),
            comma_words("april, abril"),
            comma_words("may, mayo"),
            comma_words("june, junio"),
            comma_words("july, julio"),
            comma_words("august, agosto"),
            comma_words("september, septiembre, setiembre"),
            comma_words("october, octubre"),
            comma_words("november, noviembre"),
            comma_words("december, diciembre"),
        ],
        "abbreviations": [
            comma_words("jan, ene"),
            comma_words("feb"),
            comma_words(""),
            comma_words("apr, abr"),
            comma_words(""),
            comma_words("jun"),
            comma_words("jul"),
            comma_words("aug"),
            comma_words("sep, sept"),
            comma_words("oct"),
            comma_words("nov"),
            comma_words("dec, dic"),
        ],
        "two_meanings": comma_words("march, may, april, june, august, abril, mayo, julio"),
    },
    # the northern ones, by their first month
    "seasons": {
        "3": comma_words("spring, primavera"),
        "6": comma_words("summer, verano"),
        "9": comma_words("autumn, fall, otoño"),
        "12": comma_words("winter, invierno"),
    },
    # from Monday on
    "weekdays": {
        "names": [
            comma_words("monday, lunes"),
            comma_words("tuesday, martes"),
            comma_words("wednesday, miercoles"),
            comma_words("thursday, jueves"),
            comma_words("friday, viernes"),
            comma_words("saturday, sabado"),
            comma_words("sunday, domingo"),
        ],
    },
    # month-day to month-day; days from Easter Sunday and Thanksgiving
    "holidays": {
        "12-25 12-25": comma_words("christmas day, xmas day, dia de navidad"),
        "12-24 12-24": comma_words("christmas eve, xmas eve, nochebuena"),
        "12-26 12-26": comma_words("boxing day, dia de san esteban"),
        "12-28 12-28": comma_words("dia de los santos inocentes, dia de los inocentes"),
        "12-24 12-26": comma_words("christmas, xmas, navidad, navidades"),
        "12-31 12-31": comma_words("new year's eve, new years eve, nochevieja, fin de año"),
        "01-01 01-01": comma_words("new year's day, new years day, new year, new years, año nuevo"),
        "01-05 01-06": comma_words("epiphany, reyes, dia de reyes"),
        "02-14 02-14": comma_words("valentine's day, valentines day, valentine's, san valentin"),
        "03-17 03-17": comma_words("st patrick's day, saint patrick's day, st patricks day"),
        "07-04 07-04": comma_words("independence day"),
        "10-31 10-31": comma_words("halloween"),
        "11-01 11-01": comma_words("all saints day, all saints' day, dia de todos los santos"),
        "11-01 11-02": comma_words("day of the dead, dia de muertos, dia de los muertos"),
        "easter -2 1": comma_words("easter, easter weekend, pascua"),
        "easter -2 -2": comma_words("good friday, viernes santo"),
        "easter -7 -7": comma_words("palm sunday, domingo de ramos"),
        "easter 1 1": comma_words("easter monday, lunes de pascua"),
        "easter 0 0": comma_words("easter sunday, domingo de pascua, domingo de resurreccion"),
        "easter -7 0": comma_words("holy week, semana santa"),
        "thanksgiving 0 0": comma_words("thanksgiving, thanksgiving day, accion de gracias"),
        "thanksgiving 0 3": comma_words("thanksgiving weekend"),
        "thanksgiving 1 1": comma_words("black friday"),
        "thanksgiving 4 4": comma_words("cyber monday"),
    },
    # hours, from the first to the last
    "day_parts": {
        "00 11": comma_words("morning, mañana"),
        "12 17": comma_words("afternoon"),
        "12 20": comma_words("tarde"),
        "18 23": comma_words("evening, night, noche"),
    },
    "decades": {
        "100": comma_words("noughties, aughts, dos mil"),
        "30": comma_words("thirties, treinta"),
        "40": comma_words("forties, cuarenta"),
        "50": comma_words("fifties, cincuenta"),
        "60": comma_words("sixties, sesenta"),
        "70": comma_words("seventies, setenta"),
        "80": comma_words("eighties, ochenta"),
        "90": comma_words("nineties, noventa"),
    },
    "ordinals": {
        "1": comma_words("first, 1st, primer, primero, primera, primeros, primeras, 1er, 1º, 1ª"),
        "2": comma_words("second, 2nd, segundo, segunda, 2º, 2ª"),
        "3": comma_words("third, 3rd, tercer, tercera, 3er, 3º, 3ª"),
        "4": comma_words("fourth, 4th, cuarto, cuarta, 4º, 4ª"),
        "-1": comma_words("last, ultimo, ultima, ultimos, ultimas"),
    },
    "numbers": {
        "1": comma_words("a, an, one, un, una, uno"),
        "2": comma_words("two, dos, couple of, a couple of, un par de"),
        "3": comma_words("three, tres"),
        "4": comma_words("four, cuatro"),
        "5": comma_words("five, cinco"),
        "6": comma_words("six, seis"),
        "7": comma_words("seven, siete"),
        "8": comma_words("eight, ocho"),
        "9": comma_words("nine, nueve"),
        "10": comma_words("ten, diez"),
        "11": comma_words("eleven, once"),
        "12": comma_words("twelve, doce"),
        "15": comma_words("fifteen, quince"),
        "20": comma_words("twenty, veinte"),
        "30": comma_words("thirty, treinta"),
        "40": comma_words("forty, cuarenta"),
        "50": comma_words("fifty, cincuenta"),
    },
    "places": {
        "countries": comma_words(
            """
            china, turkey, chile, jordan, georgia, chad, guinea, jersey, granada, grenada,
            salvador, dominica, bermuda
            """
        ),
        "words": comma_words(
            """
            nice, bath, reading, orange, mobile, cork, split, hull, deal, sandwich, rugby, battle,
            ware, eye, street, wells, rye, flint, bend, normal, gary, eugene, jackson, madison,
            lincoln, washington, victoria, charlotte, sofia, adelaide, regina, diego, leon, la
            paz, paz, rosario, salta, moron, posadas, pinto, halle, hamm, tours, angers, lens,
            pau, bar, most, batman, van, of, man, pasto, bello, soledad, cuenca, palma, toro,
            mula, cabra, burro, rota, gata, oliva, alba, dolores, mercedes, angeles, puri, sale,
            mesa, plano, arlington, bologna, cologne, bordeaux, burgundy, chester, stone, march,
            sunset, central, center, centre, beach, park, garden, gardens, hill, hills, lake,
            forest, bridge, castle, church, mill, rock, rose, spring, springs, ocean, sea, sand,
            port, village, old town, downtown, home, hope, paradise, liberty, union, star, sun,
            moon, crystal, diamond, gold, silver, cedar, olive, cherry, lemon, apple, coffee,
            rice, salt, pepper, mango, banana, tiger, lion, eagle, fox, wolf, bear, deer, swan,
            horse, rabbit, cat, dog, dale, heath, bay, cove, creek, puerto, playa, rio, sol, luna,
            flores, rosa, cruz, carmen, mar, montaña, bosque, centro, casa, casas, torre, puente,
            rincon, nueva, buenos, vera, tigre, mata, matanza, barca, costa, sierra, cabo, campo,
            faro, prado, retiro, gracia, delicias, libertad, progreso, trinidad, concepcion,
            esperanza, limon, naranjo, pino, palmas, palmira, independencia, tyler, carson,
            jasper, chelsea, camden, virginia, carolina, barry, troy, aurora, dover, derby,
            stirling, hastings, nelson, napier, hamilton, surf, sandy, eden, patio, temple,
            palace, cabin, tower, java, buffalo
            """
        ),
    },
    # other names, English and Spanish, by the plain name that a collection has
    "aliases": _aliases(
        """
        united states = usa, us, u s, united states of america, estados unidos, ee uu, eeuu;
        united kingdom = uk, u k, great britain, reino unido, gran bretaña; england = inglaterra;
        scotland = escocia; wales = gales; spain = españa; germany = alemania, deutschland; france
        = francia; italy = italia; netherlands = holland, the netherlands, holanda, paises bajos;
        belgium = belgica; switzerland = suiza; ireland = irlanda; denmark = dinamarca; sweden =
        suecia; norway = noruega; finland = finlandia; iceland = islandia; poland = polonia; czech
        republic = czechia, republica checa, chequia; hungary = hungria; greece = grecia; turkey =
        turkiye, turquia; croatia = croacia; slovenia = eslovenia; slovakia = eslovaquia; romania
        = rumania; russian federation = russia, rusia; ukraine = ucrania; morocco = marruecos;
        egypt = egipto; tunisia = tunez; algeria = argelia; south africa = sudafrica; kenya =
        kenia; ethiopia = etiopia; tanzania united republic of = tanzania; japan = japon; korea
        republic of = south korea, korea, corea del sur, corea; korea democratic people s republic
        of = north korea, corea del norte; thailand = tailandia; philippines = the philippines,
        filipinas; malaysia = malasia; singapore = singapur; jordan = jordania; lebanon = libano;
        iran islamic republic of = iran; syrian arab republic = syria, siria; saudi arabia =
        arabia saudi, arabia saudita; united arab emirates = uae, emiratos arabes unidos, emiratos
        arabes; new zealand = nueva zelanda, nueva zelandia; mexico = mejico; brazil = brasil;
        dominican republic = republica dominicana; bahamas = the bahamas, las bahamas; cape verde
        = cabo verde; maldives = the maldives, maldivas, las maldivas; cambodia = camboya; lao
        people s democratic republic = laos; viet nam = vietnam; moldova republic of = moldova,
        moldavia; holy see vatican city state = vatican, vatican city, the vatican, vaticano;
        bosnia and herzegovina = bosnia; macedonia = north macedonia; luxembourg = luxemburgo;
        cyprus = chipre; latvia = letonia; lithuania = lituania; lisbon = lisboa; porto = oporto;
        seville = sevilla; saragossa = zaragoza; zaragoza = saragossa; london = londres; edinburgh
        = edimburgo; new york = new york city, nyc, nueva york; new york city = new york, nyc,
        nueva york; los angeles = l a; rome = roma; milan = milano; florence = firenze, florencia;
        venice = venezia, venecia; nice = niza; naples = napoli, napoles; turin = torino; munich =
        munchen, muenchen; cologne = koln, koeln, colonia; vienna = wien, viena; prague = praha,
        praga; warsaw = warszawa, varsovia; krakow = cracow, cracovia; brussels = bruxelles,
        bruselas; antwerp = antwerpen, amberes; the hague = den haag, la haya; copenhagen =
        kobenhavn, copenhague; stockholm = estocolmo; athens = atenas; istanbul = estambul; moscow
        = moscu; geneva = geneve, ginebra; zurich = zuerich; beijing = peking, pekin; tokyo =
        tokio; cairo = el cairo; marrakesh = marrakech; havana = la habana; mexico city = ciudad
        de mexico, cdmx; bordeaux = burdeos; marseille = marseilles, marsella; catalonia =
        cataluña, catalunya; andalusia = andalucia; basque country = pais vasco, euskadi; canary
        islands = canarias, islas canarias, canaries; balearic islands = baleares, islas baleares,
        balearics; bavaria = bayern, baviera; tuscany = toscana; sicily = sicilia; brittany =
        bretagne, bretaña
        """
    ),
    "cameras": {
        "words": comma_words(
            """
            apple, canon, pixel, galaxy, google, polaroid, hero, phantom, nothing, honor, edge,
            note, essential, palm, sony, samsung, kodak, leica, nokia
            """
        ),
        "fillers": comma_words(
            """
            pro, max, plus, mini, digital, camera, corporation, co, ltd, inc, company, optical,
            imaging, super, power, shot, cyber, easy, share, fine, mark, ii, iii, iv, air, se, x,
            one, ultra, lite, photo, zoom, electric, film
            """
        ),
    },
    "lists": {
        # a query of nothing but these and filters lists photos
        "photos": comma_words(
            """
            photo, photos, picture, pictures, pic, pics, image, images, photograph, photographs,
            shots, snapshots, foto, fotos, fotografia, fotografias, imagen, imagenes
            """
        ),
        # before a time or a place these say no more: "anything from Berlin"
        "anything": comma_words(
            "anything, everything, something, stuff, algo, anywhere, everywhere"
        ),
        # with "photos" after them these are the camera's: "Canon photos", but apple photos
        "makers": comma_words("canon, sony, samsung, kodak, leica, nokia"),
        # what happens or is seen at some time and place: "2019 trip", "Lisbon sunset"
        "scenes": comma_words(
            """
            beach, beaches, street, streets, sunset, sunsets, sunrise, skyline, night, nights,
            trip, trips, holiday, holidays, vacation, vacations, honeymoon, wedding, weddings,
            birthday, party, parties, weekend, visit, tour, travel, memories, reunion, graduation,
            concert, festival, carnival, marathon, mountains, market, park, harbour, harbor,
            river, coast, old town, downtown, airport, hike, hiking, camping, picnic, barbecue,
            snow, family, friends, screenshots, video, videos, selfies, summer, christmas, playa,
            playas, calle, calles, atardecer, atardeceres, amanecer, noche, viaje, viajes,
            vacaciones, boda, bodas, cumpleaños, fiesta, fiestas, excursion, paseo, visita,
            luna de miel, concierto, montaña, montañas, mercado, parque, puerto, rio, costa,
            familia, amigos, nieve, acampada
            """
        ),
        # what has a year or a place of its own: "a poster from 1984", "Windows 2000"
        "things": comma_words(
            """
            poster, posters, calendar, calendars, wine, coin, coins, stamp, stamps, car, model,
            mustang, magazine, newspaper, movie, film, song, album, cover, book, game, edition,
            version, windows, office, fifa, nba, pes, euro, expo, peugeot, bmw, runner, swift,
            odyssey, orwell, cyberpunk, route, highway, road, room, number, no, nr, num, type,
            flight, bus, line, size, page, channel, chapter, class, iso, mega, area, agenda,
            vision, copyright, error, code, pin, jersey, shirt, dress, suit, team, miss, mister,
            cartel, calendario, vino, moneda, sello, coche, modelo, revista, periodico, pelicula,
            cancion, libro, juego, flag, flags, map, maps, hat, cap, kit, uniform, costume,
            outfit, sticker, audi, toyota, honda, ford, tesla, porsche, ferrari, golf, civic,
            corolla, seat, renault, mercedes, mazda, volvo, fiat, photoshop, excel, word, ubuntu,
            android, ruta, bandera, mapa, avenida, calle, plaza, barrio, numero, pagina, linea,
            camiseta, equipo, clase, habitacion, vuelo, plate, unit, gate, platform, exit, locker,
            temperature, temperatures, serial, matricula, puerta, sala, aula,
            suite, apto, apt
            """
        ),
        # what a year is the model of, two words after: "ford escort 1995"
        "makes": comma_words(
            """
            ford, audi, bmw, peugeot, toyota, honda, nissan, mazda, subaru, suzuki, kia, hyundai,
            chevrolet, chevy, dodge, jeep, cadillac, buick, chrysler, porsche, ferrari, lamborghini,
            maserati, volkswagen, vw, opel, renault, citroen, fiat, alfa, seat, skoda, volvo, saab,
            hummer, mercedes, lexus, tesla, land, range, yamaha, ducati, vespa, harley, kawasaki,
            boeing, airbus, macbook, imac, ipad
            """
        ),
        # before a scene with a year or a place these say whose it is: "our 2019 trip"
        "ours": comma_words("my, our, the, mi, nuestro, nuestra, family, annual"),
        # what is often photographed, after a year or a model at the beginning: "2019 dogs"
        "subjects": comma_words(
            """
            bird, birds, dog, dogs, cat, cats, horse, horses, animals, wildlife, baby, kids,
            children, flower, flowers, macro, macros, portraits, landscapes, nature, food, garden,
            moon, stars, clouds, trees, forest, lake, sea, boats, buildings, churches, perro,
            perros, gato, gatos, pajaro, pajaros, aves, animales, bebe, niños, flor, flores,
            retratos, paisajes, naturaleza, comida, jardin, luna, estrellas, nubes, arboles,
            bosque, lago, barcos, edificios, iglesias
            """
        ),
        # between a negation and what it turns round: "no photos from 2020", "menos las de 2019"
        "listed": comma_words(
            """
            those, ones, the, any, are, were, is, that, las, los, que, sean, son, sea
            """
        ),
        # what is named after a season or a year: "the summer 2020 collection"
        "goods": comma_words(
            """
            collection, catalog, catalogue, lookbook, edition, issue, magazine, calendar, poster,
            coleccion, catalogo, olympics, models, song, movie, film, album, cancion, pelicula
            """
        ),
        # after "today" and "yesterday": "today is monday", "yesterday's news"
        "titles": comma_words(
            """
            is, was, by, news, show, album, movie, song, cover, poster, once, i, we, you, he, she,
            it, they, yo, te, me, se, nos, le, lo, no
            """
        ),
        # before them, besides things: "USA Today"
        "names_with_days": comma_words("usa, of, the, week"),
        # before a place these make another name of it: "new mexico", "air france"
        "parts_of_names": comma_words(
            """
            new, north, south, east, west, northern, southern, little, old, great, saint, san,
            santa, st, air, team, miss, mr, real, fc, cf, bank, radio, port, fort, cape, club,
            hotel, cafe, nueva, nuevo, norte, sur, pequeña, viejo, vieja, via, villa, lady, agent,
            captain, capitan, indiana, alice, made, born, hecho, hecha, named, called, llamado,
            llamada, happy, merry, feliz, established, est, founded,
            welcome, hello, goodbye, bienvenido, hola, adios
            """
        ),
        # "made in China"
        "origins": comma_words("made, born, hecho, hecha, fabricado, fabricada, nacido, nacida"),
        # what follows is not to be: "photos not in Spain"
        "negations": comma_words(
            """
            not, no, never, without, except, excluding, exclude, minus, neither, nor, sin, excepto,
            salvo, menos, excluyendo, nunca, ni, ninguna, ninguno
            """
        ),
        # the same at the beginning of a query: "hide screenshots"
        "hiding": comma_words("hide, skip, ignore, omit, oculta, omite, ignora, quita"),
        # a year, a place or a camera after one of these is part of something else
        "function": comma_words(
            """
            a, an, the, my, your, his, her, our, their, of, to, for, near, like, and, or, with,
            without, by, than, this, that, is, as, holding, un, una, el, la, los, las, mi, mis,
            tu, su, de, del, para, por, como, cerca, y, o, con, sin, hacia, vs, versus, against,
            contra, not, no, except, excepto, broken, old, new, roto, viejo, nuevo
            """
        ),
        # after these begins another part of the query
        "connectors": comma_words(
            """
            with, without, at, in, on, from, during, near, con, sin, en, durante, desde, since,
            before, after, until, taken, shot, antes, despues, not, but, except, pero, excepto,
            salvo
            """
        ),
        # left at the edges of what remains, these say nothing
        "edges": comma_words(
            """
            in, on, at, from, of, and, or, the, during, taken, shot, made, en, de, del, y, o, e,
            el, la, los, las, durante, desde, tomadas, tomada, tomados, tomado, hechas, hecha,
            with, con, by, por, a, al, to, over, around, either, but, pero, within, every, each,
            cada, through, across
            """
        ),
        "left_edges": comma_words("and, or, of, y, o, e, de, del, please"),
        # with photos or a request these say nothing more
        "fillers": comma_words(
            """
            my, our, every, some, me, any, the, a, an, one, un, una, mis, mi, nuestras, las,
            los, taken, shot, from, of, in, de, en, tomadas, hechas, for, i, took, we,
            that, que, hice, hicimos, saque, were, was, are, is, what, lo
            """
        ),
        # a request for all: "show me all my photos"
        "requests": comma_words(
            """
            all, show, find, search, todas, todos, todo, muestrame, busca, ver, please, things,
            photographed, filmed, fotografie, filme, only, solo, latest, newest, recent, most,
            ultimas, recientes
            """
        ),
        # between a camera and what comes before it: "taken with my"
        "made": comma_words(
            """
            taken, shot, photographed, tomada, tomadas, tomado, tomados, hecha, hechas, hecho,
            hechos, sacada, sacadas
            """
        ),
        "camera_leads": comma_words("with, on, by, con, from, de, del, using, camera, camara"),
        "possessives": comma_words("my, our, mi, nuestra, the, el, la, a, an, un, una"),
        # what one goes to a place for
        "trips": comma_words(
            """
            trip, trips, travel, visit, holiday, holidays, vacation, vacations, tour, honeymoon,
            viaje, viajes, visita, excursion
            """
        ),
    },
}


def either(names: Iterable[str]) -> str:
    """Return the regular expression of any of the names, the longest first."""
    return "(?:" + "|".join(sorted(map(re.escape, names), key=len, reverse=True)) + ")"


@cache
def date_words() -> dict[str, dict[str, Any]]:
    """Return what each word of a date means, by kind."""
    months, table = LISTS["months"], LISTS
    full = {name: n for n, names in enumerate(months["names"], 1) for name in names}
    brief = {name: n for n, names in enumerate(months["abbreviations"], 1) for name in names}
    short = full | brief | {f"{name}.": n for name, n in brief.items()}
    return {
        "month": full,
        "short": short,
        # beside a day or another month these are no sea and no "two years ago"
        "dated": short | {"mar": 3, "mar.": 3, "ago": 8},
        "season": {name: int(n) for n, names in table["seasons"].items() for name in names},
        "weekday": {
            name: n for n, names in enumerate(table["weekdays"]["names"]) for name in names
        },
        "holiday": {name: rule for rule, names in table["holidays"].items() for name in names},
        "day_part": {name: hours for hours, names in table["day_parts"].items() for name in names},
        "decade": {name: int(n) for n, names in table["decades"].items() for name in names},
        "ordinal": {name: int(n) for n, names in table["ordinals"].items() for name in names},
        "number": {name: int(n) for n, names in table["numbers"].items() for name in names},
    }


UNITS = {
    "day": "day", "days": "day", "dia": "day", "dias": "day",
    "week": "week", "weeks": "week", "semana": "week", "semanas": "week",
    "weekend": "weekend", "fin de semana": "weekend", "finde": "weekend",
    "weekends": "weekend", "fines de semana": "weekend", "findes": "weekend",
    "month": "month", "months": "month", "mes": "month", "meses": "month",
    "year": "year", "years": "year", "año": "year", "años": "year",
}  # fmt: skip
