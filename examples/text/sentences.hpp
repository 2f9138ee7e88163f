// Words of five languages, and small grammars: a sentence is who, does what, where, and when. All is in letters of
// ASCII.
#pragma once

#include <tesla/tesla.hpp>

#include <array>
#include <cstdint>
#include <iterator>
#include <set>
#include <sstream>
#include <string>
#include <vector>

using Phrases = std::vector<const char*>;

struct Language {
  const char* name;
  const char* words;  // that are frequent
  std::array<Phrases, 4> parts;
};

inline std::vector<Language> languages() {
  return {
      {"English",
       "the of and to that was with for this have from they which you were their been would what when "
       "your more than other some could time these may then do first any my now such like him into only "
       "over also after made most before years through should where world good being well those still "
       "while because great three never between each under last another right might head hand think "
       "water house place work long little thing again always something quite enough light night "
       "weather money question answer short high strong",
       {{{"the old dog", "a young woman", "my brother", "the teacher", "our neighbour", "the black cat",
          "a small child", "the doctor", "his mother", "the baker", "her best friend", "the whole town",
          "a strange bird", "the captain", "this engineer", "nobody here"},
         {"sleeps", "drinks cold water", "reads the newspaper", "waits for the train", "sings a song", "works hard",
          "writes long letters", "looks for the key", "eats an apple", "plays with the ball", "thinks about the sea",
          "buys fresh bread"},
         {"in the garden", "at home", "near the river", "under the bridge", "in the kitchen", "behind the house",
          "on the table", "at the station", "in the forest", "beside the fire", "on the beach",
          "in front of the school"},
         {"every day", "in the morning", "at night", "since yesterday", "all winter", "after lunch", "on sundays",
          "without a break"}}}},
      {"German",
       "der die das und ist nicht mit ein sich auf dem den von werden auch eine als wie nach wird bei "
       "einer noch nur haben aber sind wenn mehr sehr durch kann man schon zum zwischen immer wieder "
       "unter zeit jahr leben welt wir ich du sie ihr euch etwas viel gegen weil dann gut gross klein "
       "schnell langsam richtig falsch heute abend nacht wetter geld frage antwort stimme hoch stark "
       "licht recht macht geht kommt steht sagt weiss gibt nehmen machen zwei drei vier sechs acht",
       {{{"der alte hund", "eine junge frau", "mein bruder", "die lehrerin", "unser nachbar", "die schwarze katze",
          "ein kleines kind", "der arzt", "seine mutter", "der koch", "ihr bester freund", "die ganze stadt",
          "ein seltsamer vogel", "der hauptmann", "dieser ingenieur", "niemand von uns"},
         {"liegt", "trinkt kaltes wasser", "liest die zeitung", "wartet auf den zug", "singt ein lied", "arbeitet viel",
          "schreibt lange briefe", "sucht den schluessel", "isst einen apfel", "spielt mit dem ball",
          "denkt an das meer", "kauft frisches brot"},
         {"im garten", "zu hause", "am fluss", "unter der bruecke", "in der kueche", "hinter dem haus", "auf dem tisch",
          "am bahnhof", "im wald", "neben dem feuer", "am strand", "vor der schule"},
         {"jeden tag", "am morgen", "in der nacht", "seit gestern", "den ganzen winter", "nach dem essen", "am sonntag",
          "ohne pause"}}}},
      {"French",
       "le la les de des et est que qui dans une pour pas ce il elle sur avec plus par je se son mais "
       "nous vous ou si leur tout bien comme fait sans aussi autre apres deux meme encore ces votre "
       "quand rien toujours peu temps jour monde vie homme chose alors jamais donc trop voir faire dire "
       "aller venir prendre savoir beau grand petit bonne nouvelle question lumiere argent reponse vrai "
       "faux vite haut fort trois quatre cinq six sept huit neuf dix heure soir nuit",
       {{{"le vieux chien", "une jeune femme", "mon voisin", "la cousine", "notre oncle", "le chat noir",
          "un petit enfant", "le docteur", "son ami", "le boulanger", "la meilleure amie", "toute la ville",
          "un drole d'oiseau", "le capitaine", "cette dame", "personne ici"},
         {"dort", "boit de l'eau froide", "lit le journal", "attend le train", "chante une chanson",
          "travaille beaucoup", "ecrit de longues lettres", "cherche la clef", "mange une pomme", "joue avec le ballon",
          "pense aux vacances", "vend du pain frais"},
         {"dans le jardin", "chez nous", "au bord du fleuve", "sous le pont", "dans la cuisine", "derriere la maison",
          "sur la table", "devant la gare", "dans les bois", "pres du feu", "sur la plage", "avec ses soeurs"},
         {"tous les jours", "le matin", "pendant la nuit", "depuis hier", "tout l'hiver", "apres le repas",
          "le dimanche", "sans pause"}}}},
      {"Spanish",
       "que de no a la el es y en lo un por me una te los se con para mi esta si bien pero yo eso las "
       "su tu aqui del al como le mas esto ya todo vamos muy hay ahora algo estoy tengo nos nada cuando "
       "ha este estas porque donde quien siempre tiempo vida mundo hombre cosa mejor poco mucho nunca "
       "antes despues hacer decir poder gran nuevo bueno dinero pregunta respuesta luz dos tres cuatro "
       "cinco seis siete ocho nueve diez hora alto fuerte quiero gusta sabe verdad",
       {{{"el perro viejo", "una mujer joven", "mi hermano", "la maestra", "nuestro vecino", "el gato negro",
          "un chico", "el doctor", "su madre", "el panadero", "su mejor amigo", "toda la ciudad", "un raro animal",
          "el jefe", "este ingeniero", "nadie de nosotros"},
         {"duerme", "bebe agua fresca", "lee los libros", "espera el tren", "canta con alegria", "trabaja mucho",
          "escribe largas cartas", "busca la llave", "come una manzana", "juega con la pelota", "piensa en el mar",
          "compra pan fresco"},
         {"en el bosque", "en casa", "cerca del lago", "bajo el puente", "en la cocina", "al lado de la casa",
          "sobre la mesa", "en el mercado", "por el campo", "junto al fuego", "en la playa", "frente a la escuela"},
         {"todos los dias", "por las tardes", "de noche", "desde ayer", "todo el invierno", "antes de comer",
          "los domingos", "sin descanso"}}}},
      {"Italian",
       "che di e la il un non per una in mi sono ho ma lo ha le si ti i con cosa se io come da ci no "
       "questo qui hai sei del bene tu mio al me solo te era gli perche va tutto della so quando ora "
       "cosi anche sempre mai molto poco niente qualcosa tempo vita mondo uomo oggi sera grande nuovo "
       "buono fare dire andare venire sapere bello soldi domanda risposta luce due tre quattro cinque "
       "sette otto nove dieci alto forte voglio piace chi dove ogni altro quello stato fatto",
       {{{"il vecchio cane", "una giovane donna", "mio fratello", "la maestra", "il nostro vicino", "il gatto nero",
          "un bambino piccolo", "il dottore", "sua madre", "il fornaio", "la migliore amica", "tutto il paese",
          "uno strano uccello", "il capitano", "questo ragazzo", "nessuno di noi"},
         {"dorme", "beve acqua fredda", "legge il giornale", "aspetta il treno", "canta una canzone", "lavora molto",
          "scrive lunghe lettere", "cerca la chiave", "mangia una mela", "gioca con la palla", "pensa agli amici",
          "compra il pane fresco"},
         {"nel giardino", "a casa", "vicino al fiume", "sotto il ponte", "nella cucina", "dietro la casa",
          "sopra il tavolo", "alla stazione", "nel bosco", "accanto al fuoco", "sulla spiaggia", "davanti alla scuola"},
         {"ogni giorno", "di mattina", "di notte", "da ieri", "tutto l'inverno", "dopo pranzo", "la domenica",
          "senza sosta"}}}},
  };
}

/// Every fourth phrase, to test with, or the others, to learn from.
inline Phrases part_of(const Phrases& all, bool test) {
  Phrases result;
  for (std::size_t i = 0; i < all.size(); ++i)
    if ((i % 4 == 3) == test) result.push_back(all[i]);
  return result;
}

struct Texts {
  std::vector<std::string> lines;
  std::vector<std::int32_t> labels;  // the number of the language
};

/// Lines to learn from, so many of each language: one to eight words in any order, as what is to be learned is how
/// words look, and not a few sentences by heart. They are frequent words, and those of three phrases of four.
inline Texts draw_words(const std::vector<Language>& all, std::size_t count, std::uint64_t seed) {
  Texts texts;
  for (std::size_t language = 0; language < all.size(); ++language) {
    std::string known = all[language].words;
    for (const Phrases& part : all[language].parts)
      for (const char* phrase : part_of(part, false)) known += std::string(" ") + phrase;
    std::istringstream in(known);
    const std::set<std::string> different(std::istream_iterator<std::string>(in), {});
    const std::vector<std::string> words(different.begin(), different.end());

    const tesla::random::Stream random(seed, 2 * language);
    std::uint64_t next = 0;
    for (std::size_t i = 0; i < count; ++i) {
      std::string line = words[random.below(next++, words.size())];
      for (std::uint64_t more = random.below(next++, 8); more > 0; --more)
        line += " " + words[random.below(next++, words.size())];
      texts.lines.push_back(std::move(line));
      texts.labels.push_back(static_cast<std::int32_t>(language));
    }
  }
  return texts;
}

/// Whole sentences of the other phrases, none of which is among those that are learned from.
inline Texts draw_sentences(const std::vector<Language>& all, std::size_t count, std::uint64_t seed) {
  Texts texts;
  for (std::size_t language = 0; language < all.size(); ++language) {
    const tesla::random::Stream random(seed, 2 * language + 1);
    for (std::size_t i = 0; i < count; ++i) {
      std::string line;
      for (std::size_t part = 0; part < 4; ++part) {
        const Phrases phrases = part_of(all[language].parts[part], true);
        line += (part == 0 ? "" : " ") + std::string(phrases[random.below(4 * i + part, phrases.size())]);
      }
      texts.lines.push_back(std::move(line));
      texts.labels.push_back(static_cast<std::int32_t>(language));
    }
  }
  return texts;
}
