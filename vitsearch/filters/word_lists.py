"""The words that the grammar of queries knows, English and Spanish.

They are in lower case and without accents (ñ is a letter), with commas between. A word of two
meanings is a word of the picture unless its form makes the other one plain; docs/search.md has the
rules.
"""

from typing import Any


def _words(text: str) -> list[str]:
    return [word for part in text.split(",") if (word := " ".join(part.split()))]


def _aliases(text: str) -> dict[str, list[str]]:
    pairs = (entry.split("=") for entry in text.split(";"))
    return {" ".join(name.split()): _words(others) for name, others in pairs}


LISTS: dict[str, Any] = {
    # names by their number; abbreviations only beside a year; ``two_meanings`` never by themselves
    "months": {
        "names": [
            _words("january, enero"),
            _words("february, febrero"),
            _words("march, marzo"),
            _words("april, abril"),
            _words("may, mayo"),
            _words("june, junio"),
            _words("july, julio"),
            _words("august, agosto"),
            _words("september, septiembre, setiembre"),
            _words("october, octubre"),
            _words("november, noviembre"),
            _words("december, diciembre"),
        ],
        "abbreviations": [
            _words("jan, ene"),
            _words("feb"),
            _words(""),
            _words("apr, abr"),
            _words(""),
            _words("jun"),
            _words("jul"),
            _words("aug"),
            _words("sep, sept"),
            _words("oct"),
            _words("nov"),
            _words("dec, dic"),
        ],
        "two_meanings": _words("march, may, april, june, august, abril, mayo, julio"),
    },
    # the northern ones, by their first month
    "seasons": {
        "3": _words("spring, primavera"),
        "6": _words("summer, verano"),
        "9": _words("autumn, fall, otoño"),
        "12": _words("winter, invierno"),
    },
    # from Monday on
    "weekdays": {
        "names": [
            _words("monday, lunes"),
            _words("tuesday, martes"),
            _words("wednesday, miercoles"),
            _words("thursday, jueves"),
            _words("friday, viernes"),
            _words("saturday, sabado"),
            _words("sunday, domingo"),
        ],
    },
    # month-day to month-day; easter in days from Easter Sunday
    "holidays": {
        "12-25 12-25": _words("christmas day, xmas day, dia de navidad"),
        "12-24 12-24": _words("christmas eve, xmas eve, nochebuena"),
        "12-24 12-26": _words("christmas, xmas, navidad, navidades"),
        "12-31 12-31": _words("new year's eve, new years eve, nochevieja, fin de año"),
        "01-01 01-01": _words("new year's day, new years day, new year, año nuevo"),
        "01-05 01-06": _words("epiphany, reyes, dia de reyes"),
        "02-14 02-14": _words("valentine's day, valentines day, valentine's, san valentin"),
        "03-17 03-17": _words("st patrick's day, saint patrick's day"),
        "07-04 07-04": _words("independence day"),
        "10-31 10-31": _words("halloween"),
        "11-01 11-02": _words("day of the dead, dia de muertos, dia de los muertos"),
        "easter -2 1": _words("easter, pascua"),
        "easter 0 0": _words("easter sunday, domingo de pascua, domingo de resurreccion"),
        "easter -7 0": _words("holy week, semana santa"),
        "thanksgiving": _words("thanksgiving, thanksgiving day, accion de gracias"),
    },
    "numbers": {
        "1": _words("a, an, one, un, una, uno"),
        "2": _words("two, dos"),
        "3": _words("three, tres"),
        "4": _words("four, cuatro"),
        "5": _words("five, cinco"),
        "6": _words("six, seis"),
        "7": _words("seven, siete"),
        "8": _words("eight, ocho"),
        "9": _words("nine, nueve"),
        "10": _words("ten, diez"),
        "11": _words("eleven, once"),
        "12": _words("twelve, doce"),
    },
    "places": {
        "countries": _words(
            """
            china, turkey, chile, jordan, georgia, chad, guinea, jersey, granada, grenada,
            salvador, dominica, bermuda
            """
        ),
        "words": _words(
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
            palace, cabin, tower, java
            """
        ),
    },
    # other names, English and Spanish, by the plain name that a collection has
    "aliases": _aliases(
        """
        united states = usa, us, united states of america, estados unidos, ee uu, eeuu; united
        kingdom = uk, great britain, reino unido, gran bretaña; england = inglaterra; scotland =
        escocia; wales = gales; spain = españa; germany = alemania, deutschland; france = francia;
        italy = italia; netherlands = holland, the netherlands, holanda, paises bajos; belgium =
        belgica; switzerland = suiza; ireland = irlanda; denmark = dinamarca; sweden = suecia;
        norway = noruega; finland = finlandia; iceland = islandia; poland = polonia; czech
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
        venice = venezia, venecia; naples = napoli, napoles; turin = torino; munich = munchen,
        muenchen; cologne = koln, koeln, colonia; vienna = wien, viena; prague = praha, praga;
        warsaw = warszawa, varsovia; krakow = cracow, cracovia; brussels = bruxelles, bruselas;
        antwerp = antwerpen, amberes; the hague = den haag, la haya; copenhagen = kobenhavn,
        copenhague; stockholm = estocolmo; athens = atenas; istanbul = estambul; moscow = moscu;
        geneva = geneve, ginebra; zurich = zuerich; beijing = peking, pekin; tokyo = tokio; cairo
        = el cairo; marrakesh = marrakech; havana = la habana; mexico city = ciudad de mexico,
        cdmx; bordeaux = burdeos; marseille = marseilles, marsella; catalonia = cataluña,
        catalunya; andalusia = andalucia; basque country = pais vasco, euskadi; canary islands =
        canarias, islas canarias, canaries; balearic islands = baleares, islas baleares,
        balearics; bavaria = bayern, baviera; tuscany = toscana; sicily = sicilia; brittany =
        bretagne, bretaña
        """
    ),
    "cameras": {
        "words": _words(
            """
            apple, canon, pixel, galaxy, google, polaroid, hero, phantom, nothing, honor, edge,
            note, essential, palm, sony, samsung, kodak, leica, nokia
            """
        ),
        "fillers": _words(
            """
            pro, max, plus, mini, digital, camera, corporation, co, ltd, inc, company, optical,
            imaging, super, power, shot, cyber, easy, share, fine, mark, ii, iii, iv, air, se, x,
            one, ultra, lite, photo, zoom, electric, film
            """
        ),
    },
    "lists": {
        # a query of nothing but these and filters lists photos
        "photos": _words(
            """
            photo, photos, picture, pictures, pic, pics, image, images, photograph, photographs,
            shots, snapshots, foto, fotos, fotografia, fotografias, imagen, imagenes
            """
        ),
        # what happens or is seen at some time and place: "2019 trip", "Lisbon sunset"
        "scenes": _words(
            """
            beach, beaches, street, streets, sunset, sunsets, sunrise, skyline, night, nights,
            trip, trips, holiday, holidays, vacation, vacations, honeymoon, wedding, weddings,
            birthday, party, parties, weekend, visit, tour, travel, memories, reunion, graduation,
            concert, festival, carnival, marathon, mountains, market, park, harbour, harbor,
            river, coast, old town, downtown, airport, hike, hiking, camping, picnic, barbecue,
            snow, family, friends, screenshots, videos, selfies, summer, christmas, playa, playas,
            calle, calles, atardecer, atardeceres, amanecer, noche, viaje, viajes, vacaciones,
            boda, bodas, cumpleaños, fiesta, fiestas, excursion, paseo, visita, luna de miel,
            concierto, montaña, montañas, mercado, parque, puerto, rio, costa, familia, amigos,
            nieve, acampada
            """
        ),
        # what has a year or a place of its own: "a poster from 1984", "Windows 2000"
        "things": _words(
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
            camiseta, equipo, clase, habitacion, vuelo
            """
        ),
        # what is named after a season or a year: "the summer 2020 collection"
        "goods": _words(
            """
            collection, catalog, catalogue, lookbook, edition, issue, magazine, calendar, poster,
            coleccion, catalogo, olympics, models
            """
        ),
        # before a place these make another name of it: "new mexico", "air france"
        "parts_of_names": _words(
            """
            new, north, south, east, west, northern, southern, little, old, great, saint, san,
            santa, st, air, team, miss, mr, real, fc, cf, bank, radio, port, fort, cape, club,
            hotel, cafe, nueva, nuevo, norte, sur, pequeña, viejo, vieja, via, villa, lady, agent,
            captain, capitan, indiana, made, born, hecho, hecha, alice
            """
        ),
        # a year, a place or a camera after one of these is part of something else
        "function": _words(
            """
            a, an, the, my, your, his, her, our, their, of, to, for, near, like, and, or, with,
            without, by, than, this, that, is, as, holding, un, una, el, la, los, las, mi, mis,
            tu, su, de, del, para, por, como, cerca, y, o, con, sin, hacia, vs, versus, against,
            contra, not, no, except, excepto, broken, old, new, roto, viejo, nuevo
            """
        ),
        # after these begins another part of the query
        "connectors": _words(
            """
            with, without, at, in, on, from, during, near, con, sin, en, durante, desde, since,
            before, after, until, taken, shot, antes, despues
            """
        ),
        # left at the edges of what remains, these say nothing
        "edges": _words(
            """
            in, on, at, from, of, and, or, the, during, taken, shot, made, en, de, del, y, o, e,
            el, la, los, las, durante, desde, tomadas, tomada, tomados, tomado, hechas, hecha,
            with, con, by, por, a, al, to
            """
        ),
        # with photos or a request these say nothing more
        "fillers": _words(
            """
            my, our, every, some, me, any, the, only, mis, mi, nuestras, las, los, solo, taken,
            shot, from, of, in, de, en, tomadas, hechas, for, please, i, took, we, that, que,
            hice, hicimos, saque, were, was
            """
        ),
        # a request for all: "show me all my photos"
        "requests": _words(
            "all, show, find, search, todas, todos, todo, everything, muestrame, busca, ver"
        ),
        # between a camera and what comes before it: "taken with my"
        "made": _words(
            """
            taken, shot, photographed, tomada, tomadas, tomado, tomados, hecha, hechas, hecho,
            hechos, sacada, sacadas
            """
        ),
        "camera_leads": _words("with, on, by, con, from, de, using, camera, camara"),
        "possessives": _words("my, our, mi, nuestra, the, el, la, a, an, un, una"),
        # what one goes to a place for
        "trips": _words(
            """
            trip, trips, travel, visit, holiday, holidays, vacation, vacations, tour, honeymoon,
            viaje, viajes, visita, excursion
            """
        ),
    },
    # kinds of files that columns tell: regular expressions over a query, read only where it has one
    # of the ``stems``, and a filter. START and END are those of the query, PHOTOS words for photos.
    "files": [
        {
            "kind": "file",
            "title": "screenshots",
            "stems": _words("screen, captura, pantallazo"),
            "forms": [
                r"screen ?shots",
                r"screen ?grabs",
                r"capturas(?: de pantalla)?",
                r"pantallazos",
                r"START(?:screen ?shot|captura de pantalla|pantallazo)"
                r"(?= (?:of|from|with|de|con|in|en|last|this|\d)|END)",
            ],
            "where": (
                "path like '%screenshot%' "
                "or path like '%screen shot%' "
                "or path like '%screen_shot%' "
                "or path like '%captura de pantalla%' "
                "or path like '%capturas de pantalla%'"
            ),
        },
        {
            "kind": "file",
            "title": "videos",
            "stems": _words("video, clip"),
            "forms": [
                r"(?<!music )(?<!game )(?<!home )videos(?! (?:games?|calls?|cameras?))",
                r"vídeos",
                r"START(?:video|clip|movie clip)s?(?= (?:of|from|de) |END)",
            ],
            "format": "Video",
        },
        {
            "kind": "file",
            "title": "RAW files",
            "stems": _words("raw"),
            "forms": [
                r"raw (?:files|PHOTOS)",
                r"(?:archivos|fotos) (?:en )?raw",
            ],
            "format": "RAW",
        },
        {
            "kind": "file",
            "title": "GIFs",
            "stems": _words("gif"),
            "forms": [
                r"gifs",
                r"(?:animated )?gif (?:files|PHOTOS)",
            ],
            "format": "GIF",
        },
        {
            "kind": "file",
            "title": "PNG files",
            "stems": _words("png"),
            "forms": [
                r"pngs",
                r"png (?:files|PHOTOS)",
                r"archivos png",
            ],
            "format": "PNG",
        },
        {
            "kind": "file",
            "title": "JPEG files",
            "stems": _words("jpg, jpeg"),
            "forms": [
                r"jpe?gs",
                r"jpe?g (?:files|PHOTOS)",
                r"archivos jpe?g",
            ],
            "format": "JPEG",
        },
        {
            "kind": "file",
            "title": "HEIC files",
            "stems": _words("hei"),
            "forms": [
                r"hei[cf] (?:files|PHOTOS)",
                r"archivos hei[cf]",
            ],
            "format": "HEIC",
        },
        {
            "kind": "shape",
            "title": "panoramas",
            "stems": _words("panoram"),
            "forms": [
                r"panoramas",
                r"panoramic (?:PHOTOS|shots|views?)",
                r"(?:fotos|imagenes|vistas) panoramicas",
                r"START(?:panorama|panoramica)(?= (?:of|from|de) |END)",
                r"panorama(?=END)",
                r"panoramicas",
            ],
            "where": "aspect >= 2",
        },
        {
            "kind": "shape",
            "title": "portrait format",
            "stems": _words("portrait, vertical"),
            "forms": [
                r"portrait (?:PHOTOS|shots|orientation|format)",
                r"(?<= in )portrait(?=END)",
                r"vertical (?:PHOTOS|videos|shots|orientation|format)",
                r"verticales",
                r"(?:fotos?|imagen|imagenes|videos?) (?:en )?vertical(?:es)?",
                r"(?<= en )vertical(?=END)",
            ],
            "where": "aspect < 1",
        },
        {
            "kind": "shape",
            "title": "landscape format",
            "stems": _words("landscape, horizontal, apaisad"),
            "forms": [
                r"landscape (?:orientation|format)",
                r"horizontal (?:PHOTOS|videos|shots|orientation|format)",
                r"(?:fotos?|imagen|imagenes|videos?) (?:en )?(?:horizontal"
                r"(?:es)?|apaisad[oa]s?)",
            ],
            "where": "aspect > 1",
        },
        {
            "kind": "shape",
            "title": "square photos",
            "stems": _words("square, cuadrad"),
            "forms": [
                r"square (?:PHOTOS|format|crops?)",
                r"(?:fotos|imagenes) cuadradas",
            ],
            "where": "aspect between 0.98 and 1.02",
        },
    ],
}
